//! Giving up everything but what was handed over.
//!
//! Capabilities go, nothing can be gained again (no_new_privs), and the kernel refuses to open
//! files and sockets and to start programs (seccomp, `Documentation/userspace-api/seccomp_filter`
//! of Linux). Descriptors that altnetd sends still come in: they are received, not opened.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The kernel's word for this machine's system calls (`linux/audit.h`): an ELF machine, and bits
/// for 64-bit and for little-endian.
const AUDIT_ARCH: Option<u32> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
    Some(0xc000_003e)
} else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
    Some(0xc000_00b7)
} else if cfg!(all(target_arch = "arm", target_endian = "little")) {
    Some(0x4000_0028)
} else if cfg!(all(target_arch = "mips", target_endian = "little")) {
    Some(0x4000_0008)
} else {
    None
};

/// What opens, starts or looks into something.
const REFUSED: &[libc::c_long] = &[
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_open,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_creat,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_unlink,
    #[cfg(not(target_arch = "aarch64"))]
    libc::SYS_rename,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
];

/// Gives everything up for this thread and those it starts. Call it while there is one.
///
/// # Errors
/// What the kernel refused; the process should end then. A kernel without seccomp refuses nothing
/// and lets more be kept.
pub fn confine() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // Without CAP_SETPCAP the set stays, and without capabilities it is worth nothing.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    rustix::thread::set_no_new_privs(true)?;
    // Its memory, which has keys, is not for other processes of the same user, nor for a core dump.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    match AUDIT_ARCH {
        Some(arch) => refuse_calls(arch),
        None => Ok(()),
    }
}

/// Has the kernel answer [`REFUSED`] with "not permitted".
fn refuse_calls(arch: u32) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};

    // Where `struct seccomp_data` has its fields.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = |at| step(BPF_LD | BPF_W | BPF_ABS, at, 0, 0);
    let give = |answer| step(BPF_RET | BPF_K, answer, 0, 0);
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut program = vec![
        load(ARCH),
        step(BPF_JMP | BPF_JEQ | BPF_K, arch, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
    ];
    for call in REFUSED {
        // On to the refusal that follows, or over it.
        program.push(step(BPF_JMP | BPF_JEQ | BPF_K, *call as u32, 0, 1));
        program.push(give(refusal));
    }
    program.push(give(libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads `filter.len` steps from `filter.filter`, which `program` holds until
    // the call is over, and keeps no pointer.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Built without it.
            e if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_opened_and_nothing_is_started() {
        // On a thread of its own, which ends with the test: what is given up is a thread's.
        let confined = std::thread::spawn(|| {
            let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            confine().unwrap();
            let refused = |what: io::Result<()>| what.unwrap_err().raw_os_error();
            let file = refused(std::fs::File::open("/proc/self/status").map(drop));
            let socket = refused(std::net::UdpSocket::bind("127.0.0.1:0").map(drop));
            let caps = rustix::thread::capabilities(None).unwrap();
            assert!(caps.permitted.is_empty() && caps.effective.is_empty());
            // What is there goes on.
            use std::io::{Read, Write};
            (&near).write_all(b"a").unwrap();
            let mut heard = [0];
            (&far).read_exact(&mut heard).unwrap();
            (file, socket)
        });
        let expected = AUDIT_ARCH.map(|_| libc::EPERM);
        assert_eq!(confined.join().unwrap(), (expected, expected));
    }
}
