//! Each example does what it says, against the broker at `AMQP_URL`.

use std::process::Command;

/// The lines that a program writes, in any order.
fn lines(program: &str) -> Vec<String> {
    let output = Command::new(program).output().expect("started");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<_> = text.lines().map(str::to_string).collect();
    lines.sort();
    lines
}

#[test]
fn tasks_are_shared_and_done() {
    let tasks: Vec<_> = (1..=6).map(|n| format!("done: task {n}")).collect();
    assert_eq!(lines(env!("CARGO_BIN_EXE_work_queue")), tasks);
}

#[test]
fn subscribers_get_their_topics() {
    let expected = [
        "all: customer.new happened",
        "all: order.paid happened",
        "all: order.placed happened",
        "orders: order.paid happened",
        "orders: order.placed happened",
    ];
    assert_eq!(lines(env!("CARGO_BIN_EXE_publish_subscribe")), expected);
}

#[test]
fn requests_are_answered() {
    let expected = ["2 squared is 4", "3 squared is 9", "4 squared is 16"];
    assert_eq!(lines(env!("CARGO_BIN_EXE_rpc")), expected);
}

#[test]
fn what_fails_is_tried_again_and_parked() {
    let expected = [
        "never works: parked after 3 tries",
        "never works: try 1 failed",
        "never works: try 2 failed",
        "works at the second try: done",
        "works at the second try: try 1 failed",
    ];
    assert_eq!(lines(env!("CARGO_BIN_EXE_retries")), expected);
}
