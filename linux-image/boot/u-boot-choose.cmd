# Chooses a slot and counts the try: README.md, in U-Boot's language.
#
# In: devtype, devnum (the disk), choice_0, choice_1 (sectors of the copies, hex), scratch (a free address).
# Out: slot (A or B), part (its partition).
setenv good_0
setenv good_1
for copy in 0 1; do
    setenv order
    setenv serial
    setenv tries_a
    setenv tries_b
    setenv sane
    if test ${copy} = 0; then setenv sector ${choice_0}; else setenv sector ${choice_1}; fi
    if ${devtype} read ${scratch} ${sector} 1; then
        if env import -c ${scratch} 200 order serial tries_a tries_b; then
            for value in AB BA; do if test "${order}" = ${value}; then setenv sane 1; fi; done
            for value in 0 1 2 3; do if test "${tries_a}" = ${value}; then setenv sane ${sane}2; fi; done
            for value in 0 1 2 3; do if test "${tries_b}" = ${value}; then setenv sane ${sane}3; fi; done
            for value in 0 1 2 3 4 5 6 7 8 9; do if test "${serial}" = ${value}; then setenv sane ${sane}4; fi; done
        fi
    fi
    if test "${sane}" = 1234; then
        if test ${copy} = 0; then
            setenv good_0 1
            setenv order_0 ${order}
            setenv serial_0 ${serial}
            setenv tries_a_0 ${tries_a}
            setenv tries_b_0 ${tries_b}
        else
            setenv good_1 1
        fi
    fi
done

# What counts; copy 1, if it is good, is what was read last.
setenv counts none
if test -n "${good_1}"; then setenv counts 1; fi
if test -n "${good_0}"; then
    setenv distance 0
    if test -n "${good_1}"; then
        setexpr distance ${serial} + a
        setexpr distance ${distance} - ${serial_0}
        setexpr distance ${distance} % a
    fi
    setenv counts 0
    for newer in 1 2 3 4; do if test ${distance} = ${newer}; then setenv counts 1; fi; done
fi
if test ${counts} = 0; then
    setenv order ${order_0}
    setenv serial ${serial_0}
    setenv tries_a ${tries_a_0}
    setenv tries_b ${tries_b_0}
fi
if test ${counts} = none; then
    setenv order AB
    setenv serial 9
    setenv tries_a 3
    setenv tries_b 3
fi

if test ${tries_a} = 0 -a ${tries_b} = 0; then
    setenv tries_a 3
    setenv tries_b 3
fi
setenv slot A
if test ${tries_a} = 0; then setenv slot B; fi
if test ${order} = BA; then
    if test ${tries_b} != 0; then setenv slot B; fi
fi
if test ${slot} = A; then
    setenv part 2
    setexpr tries_a ${tries_a} - 1
else
    setenv part 3
    setexpr tries_b ${tries_b} - 1
fi
setexpr serial ${serial} + 1
if test ${serial} = a; then setenv serial 0; fi

setenv sector ${choice_0}
if test ${counts} = 0; then setenv sector ${choice_1}; fi
env export -c -s 200 ${scratch} order serial tries_a tries_b
${devtype} write ${scratch} ${sector} 1
echo "altnet: slot ${slot} (order ${order}, A has ${tries_a} tries left, B ${tries_b})"
