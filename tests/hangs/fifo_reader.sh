# A named pipe that nobody opens for writing.
# EXPECT culprit process=cat thread=1
dir=$(mktemp -d)
mkfifo "$dir/pipe"
cat "$dir/pipe"
true
