//! The helper threads of parallel sections. A helper that has nothing left to do stays awake for a short time, since the next
//! section of a network usually follows within microseconds, and waking a thread takes far longer than that.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a helper stays awake after its last section.
const AWAKE: Duration = Duration::from_micros(300);
/// How often a waiting thread looks before it offers its core to other threads.
const LOOKS: usize = 64;

/// What the threads of a section do together: every thread calls it once.
type Work<'a> = dyn Fn() + Sync + 'a;

/// A section that still has room for helpers.
struct Invitation {
    work: *const Work<'static>,
    seats: usize,
    /// How many helpers are at work in the section.
    joined: Arc<AtomicUsize>,
}

// SAFETY: the work is `Sync`, and `share` returns only after the invitation is gone and all helpers have left.
unsafe impl Send for Invitation {}

#[derive(Default)]
struct State {
    invitations: Vec<Invitation>,
    helpers: usize,
    asleep: usize,
}

#[derive(Default)]
struct Team {
    state: Mutex<State>,
    /// The free seats of all invitations, for threads that look without taking the lock.
    seats: AtomicUsize,
    invited: Condvar,
}

fn team() -> &'static Team {
    static TEAM: OnceLock<Team> = OnceLock::new();
    TEAM.get_or_init(Team::default)
}

/// Calls `work` on this thread and on up to `helpers` others at the same time, and returns when all have returned. How many
/// others there are depends on which are free: `work` must be complete when this thread's call returns and all others that
/// have begun have returned.
pub(super) fn share(helpers: usize, work: &Work<'_>) {
    /// Withdraws the invitation and waits for the helpers, also when this thread's call panics.
    struct Section(Arc<AtomicUsize>);
    impl Drop for Section {
        fn drop(&mut self) {
            team().withdraw(&self.0);
            wait(|| self.0.load(Ordering::Acquire) == 0, None);
        }
    }
    // SAFETY: only the lifetime changes. The pointer is in the invitation alone: `Section` takes that back and waits for all
    // helpers that accepted it, before `work` ends.
    let erased = unsafe { std::mem::transmute::<*const Work<'_>, *const Work<'static>>(work) };
    let section = Section(Arc::default());
    team().invite(Invitation { work: erased, seats: helpers, joined: section.0.clone() });
    work();
}

/// Waits until `done`, awake, for at most `longest`. Returns whether it is done.
fn wait(done: impl Fn() -> bool, longest: Option<Duration>) -> bool {
    let begin = longest.map(|longest| (Instant::now(), longest));
    loop {
        for _ in 0..LOOKS {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.is_some_and(|(begin, longest)| begin.elapsed() > longest) {
            return false;
        }
        std::thread::yield_now();
    }
}

impl Team {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn invite(&'static self, invitation: Invitation) {
        let wanted = invitation.seats;
        let mut state = self.state();
        while state.helpers < wanted {
            let name = format!("tomograd-{}", state.helpers + 1);
            // Without a helper, the section takes longer and its result is the same.
            if std::thread::Builder::new().name(name).spawn(|| self.help()).is_err() {
                break;
            }
            state.helpers += 1;
        }
        state.invitations.push(invitation);
        self.seats.fetch_add(wanted, Ordering::Release);
        let asleep = state.asleep;
        drop(state);
        for _ in 0..wanted.min(asleep) {
            self.invited.notify_one();
        }
    }

    fn withdraw(&self, joined: &Arc<AtomicUsize>) {
        let mut state = self.state();
        if let Some(place) = state.invitations.iter().position(|invitation| Arc::ptr_eq(&invitation.joined, joined)) {
            let invitation = state.invitations.swap_remove(place);
            self.seats.fetch_sub(invitation.seats, Ordering::Release);
        }
    }

    /// Takes a seat, if there is one.
    fn accept(&self, state: &mut State) -> Option<(*const Work<'static>, Arc<AtomicUsize>)> {
        let place = state.invitations.iter().position(|invitation| invitation.seats > 0)?;
        let invitation = &mut state.invitations[place];
        invitation.seats -= 1;
        self.seats.fetch_sub(1, Ordering::Release);
        // Under the lock, so that whoever withdraws the invitation afterwards sees this helper.
        invitation.joined.fetch_add(1, Ordering::Relaxed);
        Some((invitation.work, invitation.joined.clone()))
    }

    /// The life of a helper.
    fn help(&self) {
        /// Leaves the section, also when the work panics: whoever invited waits for that.
        struct Joined(Arc<AtomicUsize>);
        impl Drop for Joined {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Release);
            }
        }
        loop {
            let invited = wait(|| self.seats.load(Ordering::Acquire) > 0, Some(AWAKE));
            let mut state = self.state();
            while !invited && state.invitations.iter().all(|invitation| invitation.seats == 0) {
                state.asleep += 1;
                state = self.invited.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
            }
            let accepted = self.accept(&mut state);
            drop(state);
            if let Some((work, joined)) = accepted {
                let _joined = Joined(joined);
                // SAFETY: this helper is counted as joined, and `share` keeps the work alive until it has left. The work
                // hands panics on by itself; should one escape, this thread ends and no other is harmed.
                unsafe { (*work)() };
            }
        }
    }
}
