# A child is stopped.
# EXPECT culprit thread=1
sleep 100000 &
kill -STOP $!
wait $!
