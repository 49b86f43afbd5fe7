//! The order of the end, played with a clock that is wound by hand.

use super::*;

const TIMING: Timing = Timing { delay: Duration::from_secs(5), timeout: Duration::from_secs(30) };
const NO_DELAY: Timing = Timing { delay: Duration::ZERO, timeout: Duration::from_secs(30) };

enum Step {
    Asks(Ask),
    Sees(usize, Phase),
}
use Ask::{Drain as D, Stop as S};
use Phase::{Closing, Done, Draining, Running};
use Step::{Asks, Sees};

/// Plays steps at times in milliseconds.
fn check(timing: Timing, steps: &[(u64, Step)]) {
    let start = crate::clock::now();
    let mut shutdown = Shutdown::new(timing);
    for (at, step) in steps {
        let now = start + Duration::from_millis(*at);
        match step {
            Asks(ask) => shutdown.ask(now, *ask),
            Sees(in_flight, phase) => assert_eq!(shutdown.tick(now, *in_flight), *phase, "at {at} ms"),
        }
    }
}

#[test]
fn nothing_ends_unasked() {
    check(TIMING, &[(0, Sees(0, Running)), (1_000_000, Sees(0, Running))]);
}

#[test]
fn it_keeps_accepting_for_the_delay_and_then_waits_for_the_last_exchange() {
    check(
        TIMING,
        &[
            (0, Asks(S)),
            (0, Sees(3, Draining)),
            (4_999, Sees(0, Draining)),
            (5_000, Sees(3, Closing)),
            (9_000, Sees(1, Closing)),
            (9_010, Sees(0, Closing)),
            (9_109, Sees(0, Closing)),
            (9_110, Sees(0, Done)),
        ],
    );
}

#[test]
fn a_new_exchange_within_the_quiet_time_is_waited_for() {
    check(
        NO_DELAY,
        &[
            (0, Asks(S)),
            (0, Sees(0, Closing)),
            (50, Sees(1, Closing)),
            (200, Sees(0, Closing)),
            (299, Sees(0, Closing)),
            (300, Sees(0, Done)),
        ],
    );
}

#[test]
fn what_is_still_in_flight_is_given_up_before_the_timeout() {
    check(
        NO_DELAY,
        &[(0, Asks(S)), (0, Sees(1, Closing)), (24_999, Sees(1, Closing)), (25_000, Sees(1, Done))],
    );
}

#[test]
fn a_delay_longer_than_the_timeout_does_not_prolong_the_end() {
    let timing = Timing { delay: Duration::from_secs(60), timeout: Duration::from_secs(10) };
    check(
        timing,
        &[(0, Asks(S)), (0, Sees(1, Draining)), (8_333, Sees(1, Draining)), (8_334, Sees(1, Done))],
    );
}

#[test]
fn a_second_stop_ends_the_delay_and_gives_exchanges_one_more_second() {
    check(
        TIMING,
        &[
            (0, Asks(S)),
            (0, Sees(1, Draining)),
            (1_000, Asks(S)),
            (1_000, Sees(1, Closing)),
            (1_999, Sees(1, Closing)),
            (2_000, Sees(1, Done)),
        ],
    );
}

#[test]
fn a_third_stop_ends_it_at_once() {
    check(NO_DELAY, &[(0, Asks(S)), (10, Asks(S)), (20, Asks(S)), (20, Sees(9, Done))]);
}

#[test]
fn a_second_stop_near_the_end_does_not_prolong_it() {
    check(NO_DELAY, &[(0, Asks(S)), (24_900, Asks(S)), (24_999, Sees(1, Closing)), (25_000, Sees(1, Done))]);
}

#[test]
fn asked_only_to_drain_it_stays_until_it_is_told_to_stop() {
    check(
        TIMING,
        &[
            (0, Asks(D)),
            (0, Sees(0, Draining)),
            (5_000, Sees(0, Closing)),
            (900_000, Sees(0, Closing)),
            (900_001, Asks(D)),
            (900_001, Sees(0, Closing)),
            (900_002, Asks(S)),
            (900_002, Sees(0, Done)),
        ],
    );
}

#[test]
fn the_machine_names_the_next_moment_that_matters() {
    let start = crate::clock::now();
    let after = |ms| Some(start + Duration::from_millis(ms));
    let mut shutdown = Shutdown::new(TIMING);
    assert_eq!(shutdown.wake_at(), None);
    shutdown.ask(start, S);
    shutdown.tick(start, 1);
    assert_eq!(shutdown.wake_at(), after(5_000));
    shutdown.tick(start + Duration::from_secs(5), 1);
    assert_eq!(shutdown.wake_at(), after(25_000));
    shutdown.tick(start + Duration::from_secs(6), 0);
    assert_eq!(shutdown.wake_at(), after(6_100));
}

#[test]
fn time_is_kept_back_for_functions_to_stop_and_less_when_hurried() {
    let start = crate::clock::now();
    let after = |ms| Some(start + Duration::from_millis(ms));
    let mut shutdown = Shutdown::new(TIMING);
    shutdown.ask(start, D);
    assert_eq!(shutdown.exit_by(), None);
    shutdown.ask(start, S);
    assert_eq!(shutdown.exit_by(), after(30_000));
    shutdown.ask(start + Duration::from_secs(2), S);
    assert_eq!(shutdown.exit_by(), after(4_000));
}

#[test]
fn connections_go_spread_over_a_quarter_of_the_window() {
    let drain = Drain::new(Timing { delay: Duration::ZERO, timeout: Duration::from_secs(8) });
    assert_eq!(drain.stagger(0), Duration::ZERO);
    assert_eq!(drain.stagger(1 << 63), Duration::from_secs(1));
    assert!(drain.stagger(u64::MAX) < Duration::from_secs(2));
    assert_eq!(NO_DELAY.spread(), Duration::from_secs(5));
}

#[test]
fn exchanges_of_all_workers_are_counted_until_their_guards_drop() {
    let drain = Drain::new(NO_DELAY);
    let (one, two) = (drain.counter(), drain.counter());
    let guards = [one.begin(), one.begin(), two.begin()];
    assert_eq!((drain.in_flight(), one.in_flight()), (3, 2));
    drop(guards);
    assert_eq!(drain.in_flight(), 0);
}

#[test]
fn the_conductor_ends_when_the_last_exchange_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let drain = Drain::new(NO_DELAY);
    let guard = drain.counter().begin();
    runtime.block_on(async {
        let mut watch = drain.watch();
        drain.ask(Ask::Stop);
        let ends = drain.conduct();
        let frees = async {
            watch.wait_for(|phase| *phase == Closing).await.unwrap();
            assert!(drain.is_closing());
            drop(guard);
        };
        let both = async { tokio::join!(ends, frees).0 };
        let given_up = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert_eq!((given_up, drain.phase()), (0, Done));
    });
}
