# A regular expression that tries exponentially many ways.
# EXPECT culprit process=python thread=1 function=check
import re


def check(text):
    return re.match(r"(a+)+$", text)  # HANGS


check("a" * 60 + "b")
