#!/bin/sh
# Adds up the digits of its input.
#
# [corpus]
# habit = "a program: a script of sh with the tools of /usr/bin, which writes a warning to standard error"
# tier = 1
# inputs = [12, 345]
# outputs = [3, 12]
# runs = 4
echo "warning: only digits count" >&2
sum=0
for digit in $(tr -cd 0-9 | sed 's/./& /g'); do sum=$((sum + digit)); done
echo "$sum"
