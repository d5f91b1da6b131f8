//! No panic of ours, contained or not: a hook sees those that are contained.

use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use tower_background_tasks::{BackgroundTasks, Runner, Task, TaskId};

use crate::support::{
    block_on, is_quiet, no_panic_in, open_response, panics_in, soon, turns, until, wait_for,
    watched,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_hook_counts_contained_panics() {
    let panics = panics_in("the hook", |name| {
        let [runtime, _] = watched(name, false);
        let caught = runtime.block_on(async { catch_unwind(|| panic!("caught")) });
        assert!(caught.is_err());
        let caught = catch_unwind(|| panic!("on purpose"));
        assert!(caught.is_err());
    });
    assert_eq!(panics.len(), 1);
}

/// Whatever may be done with a runner and a queue: everything that is added ends.
fn uses_everything(runner: &Runner) {
    let (response, tasks) = open_response(runner);
    tasks.add_task(Task::new(async {}).timeout(SECOND));
    tasks.add_task(Task::blocking(|| ()).timeout(SECOND));
    tasks.add_blocking_task(|| ());
    drop(response);
    tasks.add_task(async {});
    tasks.add_blocking_task(|| ());
    runner.add_task(async {});
    runner.add_blocking_task(|| ());
    let _ = (
        runner.tasks(),
        runner.stats(),
        runner.cancel(TaskId::from(1)),
    );
}

#[test]
fn without_any_runtime_a_hook_sees_no_panic() {
    no_panic_in("no runtime", |_| {
        let runner = Runner::builder().max_running(1).max_blocking(1).build();
        for runner in [Runner::new(), runner] {
            uses_everything(&runner);
            block_on(runner.idle());
            assert!(is_quiet(&runner));
            let by_hand = BackgroundTasks::new();
            by_hand.add_task(Task::new(async {}).timeout(SECOND));
            by_hand.add_blocking_task(|| ());
            assert_eq!(block_on(by_hand.run()).len(), 2);
            assert!(block_on(runner.shutdown(SECOND)).is_clean());
            uses_everything(&runner);
        }
    });
}

#[test]
fn with_its_runtime_gone_a_hook_sees_no_panic() {
    no_panic_in("runtime gone", |name| {
        for runtime in watched(name, true) {
            let runner = Runner::new();
            let response = runtime.block_on(async {
                uses_everything(&runner);
                let (response, tasks) = open_response(&runner);
                tasks.add_task(Task::new(async {}).timeout(SECOND));
                tasks.add_blocking_task(|| ());
                response
            });
            drop(runtime);
            drop(response);
            uses_everything(&runner);
            wait_for(|| is_quiet(&runner));
        }
    });
}

/// Does something when it is dropped.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn in_a_tasks_destructor_a_hook_sees_no_panic() {
    no_panic_in("in a task's drop", |name| {
        for runtime in watched(name, true) {
            let runner = Runner::new();
            let own = runner.clone();
            runtime.block_on(async {
                let last = AtDrop(move || uses_everything(&own));
                runner.add_task(async move {
                    let _last = last;
                    pending::<()>().await;
                });
                until(|| runner.stats().running == 1).await;
            });
            drop(runtime); // drops the task
            wait_for(|| is_quiet(&runner));
        }
    });
}

#[test]
fn while_unwinding_a_hook_sees_no_other_panic() {
    no_panic_in("unwinding", |name| {
        for (number, runtime) in watched(name, true).into_iter().enumerate() {
            let runner = Runner::new();
            let entered = (number == 0).then(|| runtime.enter());
            let response = open_response(&runner);
            let own = runner.clone();
            let unwinding = catch_unwind(AssertUnwindSafe(move || {
                let _last = AtDrop(move || uses_everything(&own));
                response.1.add_task(Task::new(async {}).timeout(SECOND));
                response.1.add_blocking_task(|| ());
                let _response = response;
                panic!("on purpose: something else panics");
            }));
            assert!(unwinding.is_err());
            drop(entered);
            drop(runtime);
            wait_for(|| is_quiet(&runner));
        }
    });
}

#[test]
fn with_the_longest_timeouts_a_hook_sees_no_panic() {
    no_panic_in("the longest timeouts", |name| {
        for runtime in watched(name, true) {
            let runner = Runner::builder().task_timeout(Duration::MAX).build();
            let (response, tasks) = open_response(&runner);
            tasks.add_task(Task::new(turns(3)).timeout(Duration::MAX));
            tasks.add_task(Task::blocking(|| ()).timeout(Duration::MAX));
            tasks.add_task(turns(3));
            tasks.add_blocking_task(|| ());
            let report = runtime.block_on(async {
                drop(response);
                soon(runner.shutdown(Duration::MAX)).await
            });
            assert!(report.is_clean());
            assert_eq!(runner.stats().completed, 4);
        }
    });
}
