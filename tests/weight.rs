//! What a function that nobody asks for keeps in memory, counted to the byte, as the sizes that jemalloc hands out.
//!
//! It is all that serving holds of a configuration: the text it was made from, the snapshot with the live state behind
//! it, and the scaler. What the process needs besides is the same for any number of functions. `tests/e2e/idle.rs` has
//! the whole process weighed by the system.

#![allow(clippy::unwrap_used)]

use parking_lot::Mutex;
use pilotlight::activator::{Bell, Room};
use pilotlight::auth::Passes;
use pilotlight::autoscaler::Flavour;
use pilotlight::cluster::Registry;
use pilotlight::control::scale::{Pace, Scaler, Setup};
use pilotlight::driver::{Driver, Exec, InstanceId, Order};
use pilotlight::snapshot::{Environment, Published, compile};
use pilotlight::telemetry::Telemetry;
use pilotlight::tls::Keyring;
use proxy_config::load::{File, Kept, Options, load};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What is counted is counted for all threads.
static ONE_AT_A_TIME: Mutex<()> = parking_lot::const_mutex(());
/// Bytes in use.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Scales;

#[global_allocator]
static SCALES: Scales = Scales;

/// What jemalloc hands out for this many bytes: 8, multiples of 16 up to 128, then four sizes to each doubling.
const fn class(size: usize) -> usize {
    match size {
        0..=8 => 8,
        9..=128 => size.next_multiple_of(16),
        _ => size.next_multiple_of((size - 1).next_power_of_two() / 8),
    }
}

// SAFETY: all is left to the system's allocator; beside it numbers are added up.
unsafe impl GlobalAlloc for Scales {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(class(layout.size()), Relaxed);
        // SAFETY: as it was asked.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(class(layout.size()), Relaxed);
        // SAFETY: as it was asked.
        unsafe { System.dealloc(block, layout) }
    }
}

struct Nobody;

impl Driver for Nobody {
    fn start(&mut self, order: Order) {
        panic!("nobody asked for {}", order.name);
    }
    fn stop(&mut self, _: InstanceId, _: Duration) {}
    fn exec(&self, _: InstanceId) -> Option<Exec> {
        None
    }
    fn freeze(&mut self, _: InstanceId) {}
    fn thaw(&mut self, _: InstanceId) {}
}

/// Knative Services as people write them.
fn functions(count: usize, version: u32) -> Arc<str> {
    let one = |n| {
        format!(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {{name: f{n}}}\nspec:\n  template:\n    spec:\n      \
             containers:\n      - image: example.com/f{n}:1\n        command: [pilotlight, echo, --version={version}]\n---\n"
        )
    };
    (0..count).map(one).collect::<String>().into()
}

/// Everything that stays of a configuration of `count` functions, and the bytes of its parts.
fn serve(count: usize) -> (Kept, Arc<Published>, Environment, Scaler, [usize; 3]) {
    let before = LIVE.load(Relaxed);
    let file = File { path: PathBuf::from("functions.yaml"), text: Ok(functions(count, 1)) };
    let options = Options::default();
    let loaded = load(std::slice::from_ref(&file), &options, None);
    assert_eq!((loaded.config.revisions.len(), loaded.report.problems()), (count, &[][..]));
    let (bell, telemetry) = (Arc::new(Bell::new()), Telemetry::new(2));
    let registry = Arc::new(Registry::new(bell.clone(), Arc::<Room>::default()));
    let environment = Environment {
        registry: registry.clone(),
        telemetry: telemetry.clone(),
        keyring: Arc::new(Keyring::new(None)),
        numbers: Default::default(),
        keys: Arc::default(),
        simulate: Some(Arc::new(Passes::new().unwrap())),
    };
    let published: Arc<Published> = Arc::default();
    let at = LIVE.load(Relaxed);
    let compiled = compile(&loaded.config, 1, None, &environment);
    assert_eq!((compiled.problems, compiled.warnings), (Vec::new(), Vec::new()));
    published.publish(compiled.snapshot);
    let snapshot = LIVE.load(Relaxed) - at;
    let pace = Pace { process: 1000.0, function: 1000.0, at_once: 0 };
    let setup = Setup { registry, telemetry, bell, ceiling: 100, flavour: Flavour::Pilotlight, pace };
    let scaler = Scaler::spawn(setup, |_| Box::new(Nobody));
    let at = LIVE.load(Relaxed);
    scaler.expect(&loaded.config.revisions);
    scaler.retain(&loaded.config.revisions);
    let scaling = LIVE.load(Relaxed) - at;
    drop((loaded.config, loaded.report, loaded.quarantined, loaded.blockers));
    let all = LIVE.load(Relaxed) - before;
    (loaded.kept, published, environment, scaler, [snapshot, scaling, all])
}

/// Runs one test; what it leaves to its runtime is let go before the next.
fn alone(test: impl Future<Output = ()>) {
    let _alone = ONE_AT_A_TIME.lock();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn an_idle_function_weighs_less_than_it_is_allowed_to() {
    alone(async {
        // What is made once, and the least of any list.
        drop(serve(1));
        let of = |count| serve(count).4;
        let (one, many) = (of(1), of(201));
        let each: Vec<_> = one.iter().zip(many).map(|(one, many)| (many - one) / 200).collect();
        println!("each: snapshot {} bytes, scaling {}, in all {}", each[0], each[1], each[2]);
        assert!(each[2] < 2700, "{each:?}");
    });
}

#[test]
fn what_a_reload_replaces_is_let_go() {
    alone(async {
        let (_, published, environment, scaler, _) = serve(100);
        let options = Options::default();
        let mut live = Vec::new();
        for version in 2..8 {
            let file = File { path: PathBuf::from("functions.yaml"), text: Ok(functions(100, version)) };
            let loaded = load(std::slice::from_ref(&file), &options, None);
            let compiled = compile(&loaded.config, u64::from(version), None, &environment);
            published.publish(compiled.snapshot);
            scaler.expect(&loaded.config.revisions);
            scaler.retain(&loaded.config.revisions);
            drop((loaded, file));
            live.push(LIVE.load(Relaxed));
        }
        let grown = live[5].saturating_sub(live[1]);
        assert!(grown < 100, "four reloads of 100 functions left {grown} bytes: {live:?}");
    });
}
