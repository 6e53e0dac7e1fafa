# Loads the slot that was chosen, and begins it.
#
# In: slot, part, and of the board: kernel, packed, initrd (addresses, hex), arguments.
if load ${devtype} ${devnum}:${part} ${packed} Image.gz; then
    if unzip ${packed} ${kernel}; then
        if load ${devtype} ${devnum}:${part} ${initrd} initrd.zst; then
            setenv bootargs "${arguments} altnet.slot=${slot}"
            # What the firmware made of the machine, or what U-Boot itself was given.
            if test -n "${fdt_addr}"; then setenv tree ${fdt_addr}; else setenv tree ${fdtcontroladdr}; fi
            booti ${kernel} ${initrd}:${filesize} ${tree}
        fi
    fi
fi
echo "altnet: slot ${slot} does not load"
sleep 1
reset
