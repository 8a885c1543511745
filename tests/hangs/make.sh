# A recipe of make -j hangs.
# EXPECT culprit process=sleep thread=1
printf 'all: a b\na:\n\t@true\nb:\n\t@sleep 100000; true\n' | make -j4 -f -
true
