# A loop whose end is never reached.
# EXPECT culprit process=python thread=1 function=settle
def settle(value):
    while value != 1.0:
        value = value / 3 + 0.7
    return value


settle(2.0)
