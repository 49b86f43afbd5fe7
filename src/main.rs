//! argv → command → exit code.

use clap::Parser;
use pilotlight::cli::{Cli, Command};
use pilotlight::control::process::{self, Memory};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::OnceLock;

/// Measured against mimalloc: less than half the memory of an idle connection.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc before `main`; `_RJEM_MALLOC_CONF` in the environment still wins.
///
/// Few arenas: memory freed by one worker should serve another, and the thread caches keep contention
/// low. Freed pages go back to the system after a second, at once from the second stage: a sidecar is
/// judged by what it holds when idle. No huge pages: they round the resident size up by megabytes.
/// A read buffer of 8 KiB is taken and given back for every head, of as many connections at once as there
/// are: a thread's cache has room for 128 of them (20 by default) and is thinned out every 16 MiB (every 64
/// KiB), which is a tenth of all instructions of a request.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 115] = b"narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0,thp:never,\
tcache_nslots_small_min:128,tcache_gc_incr_bytes:16777216\0";

unsafe extern "C" {
    /// jemalloc's control interface.
    fn _rjem_mallctl(
        name: *const c_char,
        old: *mut c_void,
        old_len: *mut usize,
        new: *mut c_void,
        new_len: usize,
    ) -> c_int;
}

/// Gives freed memory back to the system: this thread's cache, and what its arenas and all others hold.
/// jemalloc does it by itself only while a thread goes on allocating.
fn trim() {
    // 4096 stands for all arenas.
    for name in [c"thread.tcache.flush", c"arena.4096.purge"] {
        tell(name);
    }
}

/// A command without input and output.
fn tell(name: &CStr) {
    // SAFETY: for such commands all pointers are null.
    unsafe { _rjem_mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
}

/// The arena for what is soon given back.
static ASIDE: OnceLock<Option<u32>> = OnceLock::new();

/// Has this thread allocate from there; returns the arena from which it did before.
fn aside() -> u32 {
    let create = || {
        let (mut place, mut size) = (0u32, size_of::<u32>());
        let (old, old_size) = ((&raw mut place).cast(), &raw mut size);
        // SAFETY: the command writes one number, for which there is room.
        let made = unsafe { _rjem_mallctl(c"arenas.create".as_ptr(), old, old_size, null_mut(), 0) };
        (made == 0).then_some(place)
    };
    ASIDE.get_or_init(create).map_or(u32::MAX, allocate_from)
}

/// Has this thread allocate from arena `place`; returns the one from which it did before.
fn allocate_from(mut place: u32) -> u32 {
    // What is in the cache belongs to the arena before.
    tell(c"thread.tcache.flush");
    let (mut before, mut size) = (u32::MAX, size_of::<u32>());
    let (old, old_size) = ((&raw mut before).cast(), &raw mut size);
    // SAFETY: the command reads one number and writes one, for which there is room.
    unsafe {
        _rjem_mallctl(c"thread.arena".as_ptr(), old, old_size, (&raw mut place).cast(), size_of::<u32>())
    };
    before
}

/// Undoes `aside`.
fn back(place: u32) {
    // It failed, and nothing is to be undone.
    if place == u32::MAX {
        return;
    }
    allocate_from(place);
    // Nobody allocates there who would do it.
    let purge =
        ASIDE.get().copied().flatten().and_then(|aside| CString::new(format!("arena.{aside}.purge")).ok());
    purge.iter().for_each(|name| tell(name));
}

fn main() -> ExitCode {
    process::on_memory(Memory { trim, aside, back });
    match Cli::parse().command {
        Command::Run(args) => pilotlight::app::run(*args),
        Command::Sidecar(args) => pilotlight::app::run(args.into_run()),
        Command::Check(args) => pilotlight::cli::check::run(&args),
        Command::Echo(args) => {
            // Fewer connections are no reason not to start.
            let _ = process::raise_open_files();
            pilotlight::cli::echo::run(args)
        }
        Command::Simulate(args) => pilotlight::cli::simulate::run(&args),
        Command::Certs(args) => pilotlight::cli::certs::run(&args),
        Command::Watchdog => pilotlight::driver::watchdog::run(),
    }
}
