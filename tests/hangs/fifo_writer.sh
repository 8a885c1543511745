# A named pipe's reader sleeps before it reads on.
# EXPECT culprit process=sleep thread=1
dir=$(mktemp -d)
mkfifo "$dir/pipe"
sleep 100000 < "$dir/pipe" &
exec 3> "$dir/pipe"
rm -r "$dir"
yes >&3
true
