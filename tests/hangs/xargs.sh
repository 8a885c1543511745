# xargs starts several at once; one of them does not end.
# EXPECT culprit process=sleep thread=1
printf '0\n100000\n0\n' | xargs -n1 -P2 sleep
true
