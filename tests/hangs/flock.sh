# flock(1) waits for a lock that a sleeping program has inherited.
# EXPECT culprit process=sleep thread=1
file=$(mktemp)
flock "$file" sleep 100000 &
while flock -n "$file" true; do :; done
exec 9< "$file"
rm "$file"
flock 9
