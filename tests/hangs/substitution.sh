# A background process has inherited the output of a command substitution.
# EXPECT culprit process=sleep thread=1
answer=$(sleep 100000 & echo yes)
echo "$answer"
