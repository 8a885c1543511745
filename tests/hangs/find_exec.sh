# find waits for the program that it starts for a file.
# EXPECT culprit process=sleep thread=1
find / -maxdepth 0 -exec sleep 100000 \;
true
