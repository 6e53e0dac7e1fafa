"""A lab of namespaces in which the real binaries live for a few seconds.

    places    a computer: a network and mount namespace with its own /etc, /run and /var/lib
    network   cables, bridges, addresses and the NATs of RFC 4787
    homes     two homes, a relay and the internet between them
    clients   a computer on a home's LAN that runs nothing of ours
    providers a provider's line, a router of ours on it, and a computer behind that
    appliances a disk image of ours on a provider's line, and a computer behind that
    captures  what a listener on a cable sees
    readme    the commands a person would type, taken from the README
    altnet    the homes provisioned and running

Everything in a lab hangs on the processes that hold its namespaces. They die with the lab, also
when the lab is killed, and with them goes all they held: no name is left in /run/netns or /etc.
"""
