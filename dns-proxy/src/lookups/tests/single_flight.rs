//! Of equal questions one is in flight, whoever asks them and however.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn with_id(id: u8, mut packet: Vec<u8>) -> Vec<u8> {
    packet[0] = id;
    packet
}

#[test]
fn equal_questions_are_asked_once_and_each_is_answered_under_its_own_id_and_spelling() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    let queries = ["a.example.", "A.example.", "a.eXaMPLe."].map(|name| packets::query(name, "A"));
    let queries: Vec<Vec<u8>> = (1..).zip(queries).map(|(id, it)| with_id(id, it)).collect();
    for query in &queries {
        stage.receive(query);
    }
    assert_eq!((stage.out.asked.len(), stage.out.owed), (1, 3));
    assert!(stage.answer(&answer()));
    stage.read_messages();
    assert_eq!((stage.out.replies.len(), stage.out.owed), (3, 0));
    for (query, reply) in queries.iter().zip(&stage.out.replies) {
        assert_eq!((&reply[..2], &reply[12..query.len()]), (&query[..2], &query[12..]));
        assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 7]);
    }
    stage.receive(&query());
    assert_eq!(stage.out.asked.len(), 2, "what has landed is over");
}

#[test]
fn what_is_shared_is_admitted_for_each_client_by_itself() {
    let mut stage = LookupStage::new(Gatekeeper {
        strict_with: Some([10, 0, 0, 2].into()),
        ..Gatekeeper::default()
    });
    for client in ["10.0.0.1:4000", "10.0.0.2:4000", "10.0.0.3:4000"] {
        stage.receive_from(client, &query());
    }
    stage.answer(&answer());
    stage.read_messages();
    assert_eq!(stage.rcodes(), [0, 2, 0]);
    let admitted = stage.gate.admitted.lock().unwrap();
    let clients: Vec<String> = admitted.iter().map(|it| it.0.to_string()).collect();
    assert_eq!(clients, ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

#[test]
fn workers_share_their_flights() {
    let flights = SingleFlight::new();
    let mut workers = [(); 2].map(|()| LookupStage::beside(Gatekeeper::default(), &flights));
    for worker in &mut workers {
        worker.receive(&query());
    }
    assert!(workers[1].out.asked.is_empty());
    workers[0].answer(&answer());
    workers[1].read_messages();
    assert_eq!(workers[1].out.replies, [answer()]);
    assert_eq!(workers[1].gate.admitted.lock().unwrap().len(), 1);
}

#[test]
fn when_the_shared_attempt_fails_all_are_told() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    stage.pass(Duration::from_millis(100));
    stage.receive(&query());
    for _ in 0..3 {
        stage.pass(Duration::from_millis(2_020));
    }
    stage.read_messages();
    assert_eq!((stage.rcodes(), stage.out.owed), (vec![2, 2], 0));
    assert_eq!(stage.out.asked.len(), 3, "the rounds of one lookup");
}

#[test]
fn an_upstreams_own_error_and_a_bogus_answer_are_shared_too() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    for _ in 0..2 {
        stage.receive(&query());
    }
    for _ in 0..2 {
        stage.answer(&packets::answer_with_rcode(&query(), 5));
    }
    stage.read_messages();
    assert_eq!(stage.rcodes(), [5, 5]);
    for _ in 0..2 {
        stage.receive(&query());
    }
    for _ in 0..4 {
        stage.answer(&packets::answer(&query(), &["b.example. 60 A 192.0.2.66"]));
    }
    stage.read_messages();
    assert_eq!(stage.rcodes(), [5, 5, 2, 2]);
}

#[test]
fn a_worker_that_ends_leaves_its_questions_to_those_that_wait() {
    let flights = SingleFlight::new();
    let [mut first, mut second] = [(); 2].map(|()| LookupStage::beside(Gatekeeper::default(), &flights));
    first.receive(&query());
    second.receive(&query());
    second.receive(&query());
    drop(first);
    second.read_messages();
    assert_eq!(second.out.asked.len(), 1);
    second.answer(&answer());
    second.read_messages();
    assert_eq!(second.rcodes(), [0, 0]);
}

#[test]
fn the_same_question_with_other_flags_goes_by_tcp_and_alone_by_udp() {
    let mut checking_disabled = query();
    checking_disabled[3] |= 0x10;
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    stage.receive(&checking_disabled);
    assert_eq!((stage.out.asked.len(), stage.out.by_tcp.len()), (1, 1));
    stage.answer(&answer());
    stage.receive(&checking_disabled);
    assert_eq!(stage.out.asked.len(), 2);
}

#[test]
fn those_that_wait_count_as_in_flight_for_their_client() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    for _ in 0..11 {
        stage.receive(&query());
    }
    assert_eq!((stage.out.asked.len(), stage.rcodes()), (1, vec![5]));
}

#[derive(Debug, Clone)]
enum Step {
    /// A client's query: name, flags, EDNS size or none, an option.
    Ask(usize, u8, u8, Option<u16>, bool),
    Answer(usize),
    Apology(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..2usize, 0..2u8, prop_oneof![Just(0), Just(0x10), Just(0x20)], any::<Option<u16>>(), any::<bool>())
            .prop_map(|(worker, name, flags, edns, option)| Step::Ask(worker, name, flags, edns, option)),
        2 => (0..2usize).prop_map(Step::Answer),
        1 => (0..2usize).prop_map(Step::Apology),
        1 => (0..3_000u64).prop_map(Step::Pass),
    ]
}

fn asks(name: u8, flags: u8, edns: Option<u16>, option: bool) -> Vec<u8> {
    let name = ["a.example.", "B.example."][usize::from(name)];
    let mut packet = match edns {
        Some(size) => packets::query_with_edns(name, "A", size),
        None => packets::query(name, "A"),
    };
    if edns.is_some() && option {
        let length = packet.len();
        packet[length - 1] = 4;
        packet.extend([0xfd, 0xe9, 0, 0]);
    }
    packet[3] |= flags;
    packet
}

proptest! {
    /// Whatever clients do: at no time does an answer to one question fit two queries that are in
    /// flight by UDP.
    #[test]
    fn there_is_never_a_second_copy_for_a_forger_to_hit(steps in proptest::collection::vec(step(), 1..60)) {
        let flights = SingleFlight::new();
        let mut workers = [(); 2].map(|()| LookupStage::beside(Gatekeeper::default(), &flights));
        for step in steps {
            match step {
                Step::Ask(worker, name, flags, edns, option) => {
                    workers[worker].receive(&asks(name, flags, edns, option));
                }
                Step::Answer(worker) => oldest(&mut workers[worker], 0),
                Step::Apology(worker) => oldest(&mut workers[worker], 2),
                Step::Pass(millis) => workers.iter_mut().for_each(|it| it.pass(Duration::from_millis(millis))),
            }
            workers.iter_mut().for_each(LookupStage::read_messages);
            let mut copies: BTreeMap<String, usize> = BTreeMap::new();
            for query in workers.iter().flat_map(|it| it.out.pending.values()) {
                let name = crate::client_query::Query::read(query).unwrap().question().name.to_string();
                // Two silent upstreams may be probed at a time. An answer to that opens nothing.
                if name != "." {
                    *copies.entry(name).or_default() += 1;
                }
            }
            prop_assert!(copies.values().all(|copies| *copies == 1), "{copies:?}");
        }
        // And nobody is forgotten.
        for _ in 0..4 {
            workers.iter_mut().for_each(|it| it.pass(Duration::from_millis(2_020)));
            workers.iter_mut().for_each(LookupStage::read_messages);
        }
        for worker in &workers {
            prop_assert_eq!(worker.out.owed, worker.out.by_tcp.len() as isize);
        }
    }
}

/// Answers what was asked first and not answered yet.
fn oldest(worker: &mut LookupStage, rcode: u8) {
    let waiting = worker
        .out
        .asked
        .iter()
        .find(|it| worker.out.pending.contains_key(&it.2.id));
    let Some((_, key, sent, query)) = waiting.cloned() else {
        return;
    };
    let mut answer = packets::answer_with_rcode(&query, rcode);
    answer[..2].copy_from_slice(&sent.id.to_be_bytes());
    assert!(
        worker
            .lookups
            .answered(worker.now, key, sent.id, &answer, &mut worker.out)
    );
}
