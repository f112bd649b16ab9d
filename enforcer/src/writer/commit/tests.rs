//! Group commit against a kernel in memory that fails on demand, and then as the real one does:
//! atomically.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use policy::ProgramId;
use policy::classifier::SetClass;
use proptest::prelude::*;
use tokio::sync::oneshot;

use crate::layout::{ElementKey, IpFamily, SetId, SetKind};
use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::set_key::SetKey;
use crate::writer::cut_flows::CutFlows;
use crate::writer::element_key::encode_key;
use crate::writer::heartbeat::Heartbeat;
use crate::writer::kernel_writer::Sweeps;
use crate::writer::renewal::Renewal;
use crate::writer::shared::WriterShared;

use super::*;

/// What goes wrong with a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is committed, and the acknowledgement is lost.
    AcknowledgementLost,
    /// It is lost altogether.
    RequestLost,
}

/// One table in memory.
#[derive(Debug, Default)]
struct Memory {
    sets: Vec<(SetId, u32)>,
    elements: BTreeMap<(String, SetKey), Duration>,
    /// What happens to the next transactions.
    faults: VecDeque<Option<Fault>>,
    /// Refused with EINVAL.
    bad: Vec<SetKey>,
    /// Whether a refusal says which element is meant.
    tells_culprit: bool,
    transactions: usize,
    unreadable: bool,
}

impl Memory {
    fn errors(&self, operations: &[ElementOp]) -> Vec<OperationError> {
        let culprits = operations
            .iter()
            .enumerate()
            .filter(|(_, operation)| self.bad.contains(&operation.key));
        culprits
            .take(1)
            .map(|(at, _)| OperationError {
                operations: if self.tells_culprit {
                    at..operations.len()
                } else {
                    0..operations.len()
                },
                located: self.tells_culprit,
                errno: libc::EINVAL,
                text: "bad".to_owned(),
            })
            .collect()
    }
}

impl Kernel for Memory {
    fn commit(&mut self, operations: &[ElementOp]) -> Result<(), CommitError> {
        self.transactions += 1;
        let fault = self.faults.pop_front().flatten();
        if fault == Some(Fault::RequestLost) {
            return Err(CommitError::Unacknowledged(io::ErrorKind::WouldBlock.into()));
        }
        let errors = self.errors(operations);
        if !errors.is_empty() {
            return Err(CommitError::Refused(errors));
        }
        for operation in operations {
            let place = (operation.set.to_string(), operation.key.clone());
            match operation.action {
                ElementAction::Add(timeout) => self.elements.insert(place, timeout),
                ElementAction::AddPermanent => self.elements.insert(place, Duration::MAX),
                ElementAction::Delete => Some(
                    self.elements
                        .remove(&place)
                        .expect("deleting what is missing is an error"),
                ),
            };
        }
        match fault {
            Some(_) => Err(CommitError::Unacknowledged(io::Error::from_raw_os_error(libc::ENOBUFS))),
            None => Ok(()),
        }
    }

    fn learned_sets(&mut self) -> io::Result<Vec<(SetId, u32)>> {
        match self.unreadable {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok(self.sets.clone()),
        }
    }

    fn elements(&mut self, set: &SetId) -> io::Result<Vec<(ElementKey, Option<Duration>)>> {
        let name = set.to_string();
        let elements = self.elements.iter().filter(|((of, _), _)| *of == name);
        Ok(elements.map(|((_, key), left)| (read_key(key), Some(*left))).collect())
    }

    fn heartbeats(&mut self) -> io::Result<Vec<(u8, Duration)>> {
        Ok(Vec::new())
    }

    fn reconnect(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const CAPACITY: u32 = 1000;

fn set() -> SetId {
    SetId {
        program: ProgramId(1),
        class: SetClass::Allow,
        kind: SetKind::All,
        family: IpFamily::V4,
    }
}

fn element(last: u8) -> Element {
    Element {
        set: set(),
        key: ElementKey {
            address: [192, 0, 2, last].into(),
            port: None,
        },
    }
}

fn read_key(key: &SetKey) -> ElementKey {
    let address: [u8; 4] = key.as_slice().try_into().unwrap();
    ElementKey {
        address: address.into(),
        port: None,
    }
}

fn writer(kernel: Memory) -> KernelWriter<Memory> {
    let mut writer = KernelWriter {
        kernel: Memory {
            sets: vec![(set(), CAPACITY)],
            ..kernel
        },
        shared: Arc::new(WriterShared::default()),
        renewal: Renewal::Refresh,
        installed: None,
        interception: None,
        sweeps: Sweeps::default(),
        cuts: CutFlows::default(),
        heartbeat: Arc::new(Heartbeat::new(Memory::default(), Renewal::Refresh, 200)),
        guard: None,
    };
    assert!(writer.read_back());
    writer
}

type Outcome = Result<Committed, AdmitError>;

/// Commits one group of admissions of these addresses, and returns how each ended.
fn commit(writer: &mut KernelWriter<Memory>, group: &[&[u8]]) -> Vec<Outcome> {
    let end = clock::now() + Duration::from_secs(60);
    let (waiting, outcomes): (Vec<_>, Vec<_>) = group
        .iter()
        .map(|lasts| {
            let (answer, outcome) = oneshot::channel();
            let admission = PendingAdmission {
                generation: Generation::default(),
                elements: lasts.iter().map(|last| (element(*last), end)).collect(),
                holder: Holder(1),
                deadline: Duration::from_secs(1),
                answer: Box::new(answer),
            };
            (admission, outcome)
        })
        .unzip();
    writer.commit_group(waiting);
    outcomes
        .into_iter()
        .map(|mut outcome| outcome.try_recv().expect("every admission is answered"))
        .collect()
}

fn holds(writer: &KernelWriter<Memory>, last: u8) -> bool {
    let place = (set().to_string(), encode_key(&element(last).key));
    writer.kernel.elements.contains_key(&place)
}

#[test]
fn admissions_that_wait_share_one_transaction() {
    let mut writer = writer(Memory::default());
    let outcomes = commit(&mut writer, &[&[1, 2], &[2, 3], &[3]]);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(writer.kernel.transactions, 1);
    assert_eq!(
        writer.shared.counters.elements_written.load(Relaxed),
        3,
        "equal elements are written once"
    );
}

#[test]
fn one_by_itself_is_committed_if_all_goes_well_and_left_to_the_group_otherwise() {
    let mut writer = writer(Memory::default());
    let now = clock::now();
    let commit_one = |writer: &mut KernelWriter<Memory>, generation, last| {
        let elements = [(element(last), now + Duration::from_secs(60))];
        writer
            .commit_one(Generation(generation), &elements, Holder(1), now)
            .is_some()
    };
    assert!(commit_one(&mut writer, 0, 1) && holds(&writer, 1));
    assert!(commit_one(&mut writer, 0, 1), "it is held already");
    assert!(!commit_one(&mut writer, 7, 2), "the rules have changed");
    assert_eq!(writer.kernel.transactions, 1);

    writer.kernel.bad = vec![encode_key(&element(3).key)];
    assert!(!commit_one(&mut writer, 0, 3));
    writer.kernel.faults = [Some(Fault::AcknowledgementLost)].into();
    assert!(!commit_one(&mut writer, 0, 4));
    assert_eq!(writer.shared.mirror().live(now).len(), 1);
    let outcomes = commit(&mut writer, &[&[3], &[4]]);
    assert!(outcomes[0].is_err() && outcomes[1].is_ok(), "{outcomes:?}");
    assert!(!holds(&writer, 3) && holds(&writer, 4));
}

#[test]
fn a_lost_acknowledgement_is_made_up_for_by_reading_back() {
    for fault in [Fault::AcknowledgementLost, Fault::RequestLost] {
        let mut writer = writer(Memory {
            faults: [Some(fault)].into(),
            ..Memory::default()
        });
        let outcomes = commit(&mut writer, &[&[1], &[2]]);
        assert!(outcomes.iter().all(Result::is_ok), "{fault:?}: {outcomes:?}");
        assert!(holds(&writer, 1) && holds(&writer, 2));
        assert_eq!(writer.shared.mirror().live(clock::now()).len(), 2);
    }
}

#[test]
fn a_kernel_that_never_acknowledges_leaves_the_outcome_unknown() {
    let mut writer = writer(Memory {
        faults: vec![Some(Fault::RequestLost); 2].into(),
        ..Memory::default()
    });
    let outcomes = commit(&mut writer, &[&[1]]);
    assert!(matches!(outcomes[0], Err(AdmitError::Unknown(_))));
    assert_eq!(writer.kernel.transactions, 2, "it is tried twice");
    assert_eq!(writer.shared.mirror().live(clock::now()), []);
}

#[test]
fn a_kernel_that_cannot_be_read_back_leaves_nothing_in_the_mirror() {
    let mut writer = writer(Memory::default());
    let _outcomes = commit(&mut writer, &[&[1]]);
    writer.kernel.unreadable = true;
    writer.kernel.faults = [Some(Fault::RequestLost)].into();
    let outcomes = commit(&mut writer, &[&[2]]);
    assert!(matches!(outcomes[0], Err(AdmitError::Unknown(_))));
    assert_eq!(writer.shared.mirror().live(clock::now()), []);
}

#[test]
fn what_is_over_leaves_a_full_set_before_anything_live_gives_way() {
    let mut writer = writer(Memory::default());
    // From here on it is known to be alone.
    writer.sweep();
    assert!(commit(&mut writer, &[&[1], &[2]]).iter().all(Result::is_ok));
    let now = clock::now();
    let over = Lifetime {
        end: now,
        gone: now + LINGER,
    };
    {
        let mut mirror = writer.shared.mirror();
        mirror.replace_sets([(set(), 2)]);
        // A moment later than it was known, since moments are rounded down.
        mirror.record(element(1), over, Holder(1), now + Duration::from_millis(10));
    }
    let outcomes = commit(&mut writer, &[&[3]]);
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert!(!holds(&writer, 1) && holds(&writer, 2) && holds(&writer, 3));
    assert_eq!(writer.shared.counters.evictions.load(Relaxed), 0);
}

#[test]
fn nobody_waits_any_more_so_nothing_is_written() {
    let mut writer = writer(Memory::default());
    let (answer, outcome) = oneshot::channel();
    drop(outcome);
    writer.commit_group(vec![PendingAdmission {
        generation: Generation::default(),
        elements: vec![(element(1), clock::now() + Duration::from_secs(60))],
        holder: Holder(1),
        deadline: Duration::from_secs(1),
        answer: Box::new(answer),
    }]);
    assert_eq!(writer.kernel.transactions, 0);
}

proptest! {
    /// Whatever the kernel refuses, whether it tells the culprit or not, and whatever gets lost: an
    /// admission succeeds exactly when none of its elements is bad, what succeeded is in the
    /// kernel, and nothing is that only refused admissions asked for.
    #[test]
    fn an_admission_depends_on_its_own_elements_only(
        group in proptest::collection::vec(proptest::collection::btree_set(0u8..20, 0..5), 0..12),
        bad in proptest::collection::btree_set(0u8..20, 0..5),
        tells_culprit: bool,
        replace: bool,
        lost in proptest::option::of(0usize..4),
    ) {
        let mut faults = VecDeque::new();
        if let Some(lost) = lost {
            faults.resize(lost, None);
            faults.push_back(Some(Fault::AcknowledgementLost));
        }
        let mut writer = writer(Memory {
            bad: bad.iter().map(|last| encode_key(&element(*last).key)).collect(),
            tells_culprit,
            faults,
            ..Memory::default()
        });
        writer.renewal = if replace { Renewal::Replace } else { Renewal::Refresh };
        let group: Vec<Vec<u8>> = group.into_iter().map(|lasts| lasts.into_iter().collect()).collect();
        let slices: Vec<&[u8]> = group.iter().map(Vec::as_slice).collect();
        for _ in 0..2 {
            let outcomes = commit(&mut writer, &slices);
            for (lasts, outcome) in group.iter().zip(&outcomes) {
                let good = lasts.iter().all(|last| !bad.contains(last));
                prop_assert_eq!(outcome.is_ok(), good, "{:?}: {:?}", lasts, outcome);
            }
            for last in 0..20 {
                let wanted = group
                    .iter()
                    .any(|lasts| lasts.contains(&last) && lasts.iter().all(|last| !bad.contains(last)));
                prop_assert_eq!(holds(&writer, last), wanted);
                prop_assert_eq!(writer.shared.mirror().lifetime(&element(last)).is_some(), wanted);
            }
        }
    }
}
