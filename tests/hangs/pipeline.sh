# The last of a pipeline does not read; the first is full.
# EXPECT culprit process=sleep thread=1
yes | sleep 100000
true
