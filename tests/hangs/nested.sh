# A script that runs a script that runs a program that sleeps.
# EXPECT culprit process=sleep thread=1
sh -c 'sh -c "sleep 100000; true"; true'
true
