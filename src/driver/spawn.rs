//! Starts a process without copying this one.
//!
//! `Command` forks as soon as anything is to be done between fork and exec, and a fork copies the page tables
//! and makes both sides fault on every page they write afterwards: for this process several times what the rest of
//! a start costs. Here the child borrows the memory of the thread that starts it, which stands still until the
//! child has its own program. So the child may only make system calls, on what was prepared before. One with a
//! control group is born in that.

mod into;

use super::cgroup::Group;
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, WaitStatus, waitid, waitpid};
use std::ffi::{CString, OsStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::ptr::{from_mut, null, null_mut};

/// What the child's few calls need, with much to spare.
const STACK: usize = 64 * 1024;
const SHELL: &std::ffi::CStr = c"/bin/sh";

/// A child of this process.
#[derive(Debug)]
pub(super) struct Process(pub Pid);

impl Process {
    /// Whether it has ended; it stays a zombie.
    pub fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.0), look), Ok(None))
    }

    /// Waits until it has ended, and takes the zombie away.
    pub fn wait(&self) -> io::Result<WaitStatus> {
        loop {
            match waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One that was spawned, with the ends of what it prints.
#[derive(Debug)]
pub(super) struct Spawned {
    pub process: Process,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Why nothing runs.
#[derive(Debug)]
pub(super) struct Refused {
    pub error: io::Error,
    /// Announced, without a program, and to be waited for.
    pub child: Option<Process>,
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused { error: error.into(), child: None }
    }
}

/// Starts `command`, with nothing to read, in a process group of its own and with the environment that is said in
/// it only. Before the program runs, the child has written `+` and its id to `announce`.
///
/// # Errors
/// What the system says of the program or its directory; `EPIPE` where nobody reads what is announced.
pub(super) fn spawn(
    command: &Command,
    announce: BorrowedFd<'_>,
    group: Option<&Group>,
) -> Result<Spawned, Refused> {
    let (stdout, out) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, err) = pipe_with(PipeFlags::CLOEXEC)?;
    let nothing = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let words = Words::of(command)?;
    let arguments = pointers(&words.arguments);
    let mut by_shell = pointers(&words.arguments);
    by_shell[0] = words.program.as_ptr();
    by_shell.insert(0, SHELL.as_ptr());
    let environment = pointers(&words.environment);
    let mut errand = Errand {
        program: words.program.as_ptr(),
        arguments: arguments.as_ptr(),
        by_shell: by_shell.as_ptr(),
        environment: environment.as_ptr(),
        directory: words.directory.as_ref().map_or(null(), |directory| directory.as_ptr()),
        standard: [nothing.as_raw_fd(), out.as_raw_fd(), err.as_raw_fd()],
        announce: announce.as_raw_fd(),
        entrance: -1,
        error: 0,
    };
    let id = match group {
        None => run(&mut errand, clone)?,
        Some(group) => {
            match run(&mut errand, |stack, errand| into::clone(stack, errand, group.directory())) {
                Ok(id) => id,
                // Not to be had everywhere; the other way takes the kernel some milliseconds.
                Err(_) => {
                    let entrance = group.entrance()?;
                    errand.entrance = entrance.as_raw_fd();
                    run(&mut errand, clone)?
                }
            }
        }
    };
    let process = Process(Pid::from_raw(id).ok_or_else(|| io::Error::other("a child without an id"))?);
    if errand.error != 0 {
        let error = io::Error::from_raw_os_error(errand.error);
        return Err(Refused { error, child: Some(process) });
    }
    Ok(Spawned { process, stdout, stderr })
}

/// The child, until it has its program or has failed, cloned onto a stack.
fn run(
    errand: &mut Errand,
    clone: impl FnOnce(&mut Vec<u128>, *mut c_void) -> io::Result<c_int>,
) -> io::Result<c_int> {
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    // SAFETY: the masks are plain values filled by the calls. No handler of this process runs in the child, since
    // everything is blocked until it has reset them.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let outcome = clone(&mut stack, from_mut(errand).cast());
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut());
        outcome
    }
}

/// The errand's child, in the same control group.
fn clone(stack: &mut Vec<u128>, errand: *mut c_void) -> io::Result<c_int> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the child runs on `stack`, whose end is as aligned as its elements, and this thread stands still until
    // the child no longer uses it or the errand.
    let id = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity());
        libc::clone(child, top.cast(), flags, errand)
    };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(id) }
}

/// A command as the system takes it.
struct Words {
    program: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: Option<CString>,
}

impl Words {
    fn of(command: &Command) -> io::Result<Words> {
        let word = |word: &OsStr| CString::new(word.as_bytes()).map_err(io::Error::from);
        let variable = |(name, value): (&OsStr, Option<&OsStr>)| {
            let text = [name.as_bytes(), b"=", value?.as_bytes()].concat();
            Some(CString::new(text).map_err(io::Error::from))
        };
        let all = std::iter::once(command.get_program()).chain(command.get_args());
        Ok(Words {
            program: word(command.get_program())?,
            arguments: all.map(word).collect::<io::Result<_>>()?,
            environment: command.get_envs().filter_map(variable).collect::<io::Result<_>>()?,
            directory: command.get_current_dir().map(|path| word(path.as_os_str())).transpose()?,
        })
    }
}

/// Pointers to the words, and the null that ends them. Of use as long as the words are.
fn pointers(words: &[CString]) -> Vec<*const libc::c_char> {
    words.iter().map(|word| word.as_ptr()).chain([null()]).collect()
}

/// What the child does, prepared so that it need not allocate.
struct Errand {
    program: *const libc::c_char,
    arguments: *const *const libc::c_char,
    /// The same by way of a shell, for a script that does not say what runs it.
    by_shell: *const *const libc::c_char,
    environment: *const *const libc::c_char,
    directory: *const libc::c_char,
    standard: [RawFd; 3],
    announce: RawFd,
    /// Where it moves to another control group; negative: it is where it belongs.
    entrance: RawFd,
    /// Set by the child when it fails.
    error: c_int,
}

extern "C" fn child(errand: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its errand, which nobody else touches until this has ended or runs its program.
    let errand = unsafe { &mut *errand.cast::<Errand>() };
    errand.error = carry_out(errand);
    127
}

/// Does the errand; returns only when it failed, with the error's number.
fn carry_out(errand: &Errand) -> c_int {
    let failed = || io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    let mut line = [b'\n'; 16];
    // SAFETY: system calls that may be made in a child that shares memory with its parent, on descriptors and
    // pointers that `spawn` keeps alive. Nothing is allocated, and no lock is taken.
    unsafe {
        libc::setpgid(0, 0);
        if errand.entrance >= 0 && libc::write(errand.entrance, c"0".as_ptr().cast(), 1) < 0 {
            return failed();
        }
        let length = announcement(&mut line, libc::getpid());
        if libc::write(errand.announce, line.as_ptr().cast(), length) < 0 {
            return failed();
        }
        for (standard, from) in errand.standard.iter().enumerate() {
            if libc::dup2(*from, standard as c_int) < 0 {
                return failed();
            }
        }
        if !errand.directory.is_null() && libc::chdir(errand.directory) < 0 {
            return failed();
        }
        for signal in 1..=libc::SIGRTMAX() {
            let mut action: libc::sigaction = std::mem::zeroed();
            let known = libc::sigaction(signal, null(), &raw mut action) == 0;
            // Rust's own programs ignore this one; others do not expect it.
            let ours = action.sa_sigaction != libc::SIG_IGN || signal == libc::SIGPIPE;
            if known && ours && action.sa_sigaction != libc::SIG_DFL {
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, null_mut());
            }
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, null_mut());
        libc::execve(errand.program, errand.arguments, errand.environment);
        if *libc::__errno_location() == libc::ENOEXEC {
            libc::execve(SHELL.as_ptr(), errand.by_shell, errand.environment);
        }
    }
    failed()
}

/// Writes `+`, the id and a newline to `line`; returns how many bytes that is.
fn announcement(line: &mut [u8; 16], id: c_int) -> usize {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(id).as_bytes();
    line[0] = b'+';
    line[1..=digits.len()].copy_from_slice(digits);
    line[digits.len() + 1] = b'\n';
    digits.len() + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    /// What `program` with these words prints, and how it ended.
    fn check(command: &Command) -> io::Result<(String, Option<i32>, String)> {
        let (mut announced, announce) = std::io::pipe().unwrap();
        let spawned = spawn(command, announce.as_fd(), None).map_err(|refused| {
            refused.child.map(|child| child.wait().unwrap());
            refused.error
        })?;
        drop(announce);
        let text = |mut from: std::fs::File| {
            let mut text = String::new();
            from.read_to_string(&mut text).map(|_| text)
        };
        let out = text(spawned.stdout.into())? + &text(spawned.stderr.into())?;
        let status = spawned.process.wait()?;
        let mut line = String::new();
        announced.read_to_string(&mut line)?;
        assert_eq!(line, format!("+{}\n", spawned.process.0.as_raw_nonzero()));
        Ok((out, status.exit_status(), line))
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).env_clear().env("COLOUR", "red").current_dir("/tmp");
        command
    }

    #[test]
    fn a_program_runs_as_it_was_said() {
        let script = "echo $COLOUR $HOME; pwd; cat; echo err >&2; exit 7";
        let (out, status, _) = check(&shell(script)).unwrap();
        assert_eq!((out.as_str(), status), ("red\n/tmp\nerr\n", Some(7)));
    }

    #[test]
    fn it_leads_a_group_and_no_signal_is_blocked_or_ignored() {
        let script = "cut -d' ' -f1,5 /proc/self/stat; grep -E 'Sig(Blk|Ign)' /proc/self/status";
        let (out, ..) = check(&shell(script)).unwrap();
        let mut words = out.split_whitespace();
        let [pid, group] = [words.next().unwrap(), words.next().unwrap()];
        assert_ne!(pid, group, "cut is a child of the shell, whose group it is");
        let masks: Vec<_> = words.filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
        let pipe = 1 << (libc::SIGPIPE - 1);
        assert!(masks.len() == 2 && masks[0] == 0 && masks[1] & pipe == 0, "{out}");
    }

    #[test]
    fn what_cannot_be_started_is_told_by_the_systems_own_number() {
        let kind = |command: &Command| check(command).unwrap_err().kind();
        assert_eq!(kind(&Command::new("/no/such/program")), io::ErrorKind::NotFound);
        assert_eq!(kind(&Command::new("/etc/passwd")), io::ErrorKind::PermissionDenied);
        assert_eq!(kind(shell("true").current_dir("/no/such")), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_script_that_does_not_say_what_runs_it_is_run_by_the_shell() {
        let file = std::env::temp_dir().join(format!("pilotlight-script-{}", std::process::id()));
        std::fs::write(&file, "echo hello $1\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).unwrap();
        let outcome = check(Command::new(&file).arg("world").env_clear());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(outcome.unwrap().0, "hello world\n");
    }
}
