# PID 1 of a namespace, which waits for its child.
# EXPECT culprit process=sleep thread=1
unshare --pid --fork --mount-proc sh -c 'sleep 100000 & wait; true'
true
