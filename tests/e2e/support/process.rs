//! A child process whose output is kept line by line, and which never outlives the test.

use super::wait::becomes_true;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines so far.
type Lines = Arc<Mutex<Vec<String>>>;

pub struct Process {
    child: Child,
    name: String,
    pub stdout: Lines,
    pub stderr: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` in a process group of its own.
    #[track_caller]
    pub fn start(mut command: Command) -> Process {
        // What the environment of the test run says about proxies is none of a test's.
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let name = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (stdout, out) = follow(child.stdout.take().expect("stdout is piped"));
        let (stderr, err) = follow(child.stderr.take().expect("stderr is piped"));
        Process { child, name, stdout, stderr, readers: vec![out, err] }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// To the process alone, not to its group.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process is a child that was not waited for");
    }

    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    #[track_caller]
    pub fn exits_within(&mut self, within: Duration) -> ExitStatus {
        let status = super::eventually(&format!("{} exits", self.name), within, || self.exit_status());
        // What it said last is still on its way here.
        becomes_true(Duration::from_secs(1), || self.finished());
        status
    }

    /// Whether both streams have come to their end.
    pub fn finished(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    pub fn stderr_text(&self) -> String {
        self.stderr.lock().join("\n")
    }

    pub fn stdout_text(&self) -> String {
        self.stdout.lock().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process first, so that whatever it left to clean up after it (its watchdog) gets to do so;
        // then whatever of the group is still there.
        if self.exit_status().is_none() {
            let _ = kill_process(self.pid(), Signal::KILL);
        }
        let _ = self.child.wait();
        becomes_true(Duration::from_secs(1), || self.finished());
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let defect = self.stderr.lock().iter().any(|line| line.contains(" panicked at "));
        if std::thread::panicking() || defect {
            eprintln!("---- {}", self.name);
            for (stream, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                for line in lines.lock().iter() {
                    eprintln!("{stream}| {line}");
                }
            }
        }
        // Whatever the test looks for: a defect of the program fails it.
        assert!(std::thread::panicking() || !defect, "{} has panicked", self.name);
    }
}

/// Whether a process with this id is there (a zombie is not).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

/// Ids of processes whose command line holds `part`.
pub fn processes_with(part: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(part) && alive(*pid)
    })
    .collect()
}

fn follow(stream: impl Read + Send + 'static) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let sink = Arc::clone(&lines);
    let reader = std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            sink.lock().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
    (lines, reader)
}
