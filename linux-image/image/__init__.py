"""Builds the appliance's disk images from Debian's packages and our programs. See `linux-image/README.md`.

Modules by what they are about: `boards` (what a board is), `packages` (Debian's, locked), `elf` (which libraries a
program wants), `modules` (the kernel's), `root` and `initrd` (the two file systems), `boot` (what the firmware reads),
`choice` (which slot), `disk` (partitions), `sbom`, and `make`, which puts them together.
"""
