//! A child that is born in a control group.
//!
//! To move there later takes the kernel some 15 ms: it waits for every thread of the host that is just starting or
//! ending a process. The C library has no function for this call, in which the child comes back on another stack, so
//! the few instructions around it are here, for the one architecture they were tried on.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::BorrowedFd;

/// Starts the errand's child on `stack` in the control group of that directory. This thread stands still until it has
/// its own program or has failed.
///
/// # Errors
/// What the system says, or that there is no such call.
#[cfg(target_arch = "x86_64")]
pub(super) fn clone(stack: &mut Vec<u128>, errand: *mut c_void, group: BorrowedFd<'_>) -> io::Result<c_int> {
    use std::os::fd::AsRawFd as _;

    /// `struct clone_args` of the kernel, as long as it has been since 5.7.
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = Arguments {
        flags: INTO_CGROUP | (libc::CLONE_VM | libc::CLONE_VFORK) as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: (stack.capacity() * size_of::<u128>()) as u64,
        cgroup: u64::from(group.as_raw_fd().unsigned_abs()),
        ..Arguments::default()
    };
    let id: i64;
    // SAFETY: the child comes back from the call with the registers of this thread and nothing on its own stack, whose
    // end is as aligned as a function wants it. It calls its function and ends without ever leaving these instructions.
    // The parent goes on behind them when the child no longer uses the stack or the errand.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone3 => id,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<Arguments>(),
            in("r12") errand,
            in("r13") super::child as extern "C" fn(*mut c_void) -> c_int,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if id < 0 { Err(io::Error::from_raw_os_error(-id as i32)) } else { Ok(id as c_int) }
}

/// There is no such call here.
///
/// # Errors
/// Always.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn clone(_: &mut Vec<u128>, _: *mut c_void, _: BorrowedFd<'_>) -> io::Result<c_int> {
    Err(io::ErrorKind::Unsupported.into())
}
