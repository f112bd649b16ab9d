use proptest::prelude::*;

use super::*;
use crate::packets;

const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)), 53);

fn learn(question: (&str, &str), records: &[&str]) -> Result<ValidatedAnswer, InvalidAnswer> {
    let query = packets::query(question.0, question.1);
    validate(&Query::read(&query).unwrap(), &packets::answer(&query, records), SOURCE)
}

fn addresses(validated: Result<ValidatedAnswer, InvalidAnswer>) -> Vec<String> {
    let validated = validated.unwrap().addresses.into_iter();
    validated.map(|(ip, ttl)| format!("{ip} {}", ttl.as_secs())).collect()
}

#[test]
fn addresses_of_the_name_itself_are_taught_with_their_own_ttl() {
    let validated = learn(
        ("a.example.", "A"),
        &["a.example. 60 A 192.0.2.2", "A.eXample. 30 A 192.0.2.1"],
    );
    assert_eq!(addresses(validated), ["192.0.2.1 30", "192.0.2.2 60"]);
}

/// The kernel sends IPv4 packets to it, so the IPv6 address would open nothing that is used.
#[test]
fn a_mapped_address_teaches_the_ipv4_address() {
    let validated = learn(
        ("a.example.", "AAAA"),
        &["a.example. 60 AAAA ::ffff:192.0.2.1", "a.example. 60 AAAA 2001:db8::1"],
    );
    assert_eq!(addresses(validated), ["192.0.2.1 60", "2001:db8::1 60"]);
    let hinted = learn(
        ("a.example.", "HTTPS"),
        &["a.example. 60 HTTPS 1 . ipv6hint=::ffff:192.0.2.1"],
    );
    assert_eq!(addresses(hinted), ["192.0.2.1 60"]);
}

/// RFC 9460 §2.4.2: what a client connects to is what the alias leads to.
#[test]
fn an_alias_of_a_service_is_followed_like_a_cname() {
    let validated = learn(
        ("a.example.", "HTTPS"),
        &[
            "a.example. 300 HTTPS 0 b.example.",
            "b.example. 20 HTTPS 0 c.example.",
            "c.example. 60 HTTPS 1 . ipv4hint=192.0.2.1",
            "c.example. 10 A 192.0.2.2",
        ],
    );
    let chain: Vec<_> = validated.as_ref().unwrap().chain.iter().map(|it| it.as_str()).collect();
    assert_eq!(chain, ["b.example.", "c.example."]);
    assert_eq!(addresses(validated), ["192.0.2.1 20", "192.0.2.2 10"]);
}

#[test]
fn an_alias_of_a_service_that_leads_nowhere_or_in_a_circle_teaches_nothing() {
    let alone = learn(("a.example.", "HTTPS"), &["a.example. 60 HTTPS 0 ."]);
    assert!(addresses(alone).is_empty());
    for records in [
        ["a.example. 60 HTTPS 0 b.example.", "b.example. 60 HTTPS 0 a.example."],
        ["a.example. 60 HTTPS 0 a.example.", "a.example. 60 HTTPS 0 a.example."],
    ] {
        assert_eq!(learn(("a.example.", "HTTPS"), &records), Err(InvalidAnswer::AliasLoop));
    }
    let two = [
        "a.example. 60 HTTPS 0 b.example.",
        "a.example. 60 HTTPS 0 c.example.",
        "c.example. 60 HTTPS 1 . ipv4hint=192.0.2.1",
    ];
    assert_eq!(learn(("a.example.", "HTTPS"), &two), Err(InvalidAnswer::BrokenChain));
    assert!(addresses(learn(("a.example.", "HTTPS"), &two[..2])).is_empty());
    let beside = [
        "a.example. 60 HTTPS 0 b.example.",
        "c.example. 60 HTTPS 1 . ipv4hint=192.0.2.1",
    ];
    assert_eq!(learn(("a.example.", "HTTPS"), &beside), Err(InvalidAnswer::BrokenChain));
}

#[test]
fn an_address_that_stands_twice_counts_once_with_its_smallest_ttl() {
    let validated = learn(
        ("a.example.", "A"),
        &["a.example. 60 A 192.0.2.1", "a.example. 30 A 192.0.2.1"],
    );
    assert_eq!(addresses(validated), ["192.0.2.1 30"]);
}

#[test]
fn a_chain_is_followed_in_any_order_and_its_smallest_ttl_counts() {
    let validated = learn(
        ("WWW.example.", "AAAA"),
        &[
            "c.example. 300 AAAA 2001:db8::1",
            "b.example. 20 CNAME c.example.",
            "www.example. 100 CNAME b.example.",
        ],
    );
    let chain: Vec<_> = validated
        .as_ref()
        .unwrap()
        .chain
        .iter()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(chain, ["b.example.", "c.example."]);
    assert_eq!(validated.as_ref().unwrap().name.as_str(), "www.example.");
    assert_eq!(validated.as_ref().unwrap().source, SOURCE);
    assert_eq!(addresses(validated), ["2001:db8::1 20"]);
}

#[test]
fn a_record_beside_the_chain_makes_the_answer_bogus() {
    for stray in [
        "victim.example. 60 A 192.0.2.66",
        "victim.example. 60 AAAA 2001:db8::66",
        "victim.example. 60 CNAME b.example.",
        "victim.example. 60 HTTPS 1 . ipv4hint=192.0.2.66",
        "victim.example. 60 SVCB 1 .",
        // An address of a name that is an alias (RFC 1034 §3.6.2 forbids it).
        "a.example. 60 A 192.0.2.66",
    ] {
        let validated = learn(
            ("a.example.", "A"),
            &["a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1", stray],
        );
        assert_eq!(validated, Err(InvalidAnswer::BrokenChain), "{stray}");
    }
}

#[test]
fn a_record_of_another_type_beside_the_chain_is_none_of_our_business() {
    let validated = learn(
        ("a.example.", "A"),
        &["b.example. 60 TXT hello", "a.example. 60 A 192.0.2.1"],
    );
    assert_eq!(addresses(validated), ["192.0.2.1 60"]);
}

#[test]
fn aliases_in_a_circle_are_bogus() {
    for circle in [
        &["a.example. 60 CNAME a.example."][..],
        &["a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."],
        &["a.example. 60 CNAME b.example.", "b.example. 60 CNAME b.example."],
    ] {
        assert_eq!(learn(("a.example.", "A"), circle), Err(InvalidAnswer::AliasLoop));
    }
}

#[test]
fn two_aliases_of_one_name_are_bogus_unless_they_are_the_same() {
    let two = ["a.example. 60 CNAME b.example.", "a.example. 60 CNAME c.example."];
    assert_eq!(learn(("a.example.", "A"), &two), Err(InvalidAnswer::ConflictingAliases));

    let same = [
        "a.example. 60 CNAME b.example.",
        "A.example. 10 CNAME B.example.",
        "b.example. 60 A 192.0.2.1",
    ];
    assert_eq!(addresses(learn(("a.example.", "A"), &same)), ["192.0.2.1 10"]);
}

#[test]
fn a_chain_of_sixteen_aliases_is_followed_and_one_of_seventeen_is_not() {
    let chain = |length: usize| {
        let mut records: Vec<String> = (0..length)
            .map(|i| format!("n{i}.example. 60 CNAME n{}.example.", i + 1))
            .collect();
        records.push(format!("n{length}.example. 60 A 192.0.2.1"));
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        learn(("n0.example.", "A"), &records)
    };
    assert_eq!(addresses(chain(16)), ["192.0.2.1 60"]);
    assert_eq!(chain(17), Err(InvalidAnswer::ChainTooLong));
}

#[test]
fn hints_of_a_service_teach_and_those_of_an_alias_do_not() {
    let service = "a.example. 60 HTTPS 1 . ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1";
    assert_eq!(
        addresses(learn(("a.example.", "HTTPS"), &[service])),
        ["192.0.2.1 60", "192.0.2.2 60", "2001:db8::1 60"]
    );
    let alias = "a.example. 60 HTTPS 0 b.example. ipv4hint=192.0.2.1";
    assert!(addresses(learn(("a.example.", "HTTPS"), &[alias])).is_empty());
}

#[test]
fn an_answer_without_addresses_teaches_the_name_alone() {
    assert!(addresses(learn(("a.example.", "TXT"), &["a.example. 60 TXT hello"])).is_empty());
    assert!(addresses(learn(("a.example.", "A"), &[])).is_empty());
    let validated = learn(("a.example.", "A"), &["a.example. 60 CNAME b.example."]).unwrap();
    assert_eq!(validated.chain.len(), 1);
}

#[test]
fn addresses_count_under_noerror_only() {
    let query = packets::query("a.example.", "A");
    let mut answer = packets::answer(&query, &["a.example. 60 A 192.0.2.1"]);
    answer[3] |= 3;
    let validated = validate(&Query::read(&query).unwrap(), &answer, SOURCE);
    assert!(addresses(validated).is_empty());
}

#[test]
fn another_class_opens_nothing() {
    let query = packets::query("a.example.", "A");
    let mut answer = packets::answer(&query, &["a.example. 60 A 192.0.2.1"]);
    // The class of the record: behind header, question, a pointer and the type.
    let class = query.len() + 4;
    assert_eq!(answer[class..class + 2], [0, 1]);
    answer[class + 1] = 3;
    assert_eq!(
        validate(&Query::read(&query).unwrap(), &answer, SOURCE),
        Err(InvalidAnswer::BrokenChain)
    );

    let mut chaos = query;
    *chaos.last_mut().unwrap() = 3;
    assert!(addresses(validate(&Query::read(&chaos).unwrap(), &answer[..], SOURCE)).is_empty());
}

#[test]
fn a_negative_ttl_counts_as_zero() {
    let validated = learn(("a.example.", "A"), &["a.example. 2147483648 A 192.0.2.1"]);
    assert_eq!(addresses(validated), ["192.0.2.1 0"]);
}

#[test]
fn every_answer_cut_short_inside_its_answer_section_is_malformed() {
    let query = packets::query("a.example.", "A");
    let records = ["a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1"];
    let answer = packets::answer(&query, &records);
    for length in query.len()..answer.len() {
        let cut = validate(&Query::read(&query).unwrap(), &answer[..length], SOURCE);
        assert_eq!(cut, Err(InvalidAnswer::Malformed));
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let query = packets::query("a.example.", "A");
        let _ = validate(&Query::read(&query).unwrap(), &noise, SOURCE);
    }

    /// Noise that gets past the header and the question.
    #[test]
    fn no_answer_section_makes_it_panic(
        count in 0u16..40,
        noise in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xc0), Just(12), Just(0), Just(1), Just(5)], 0..600),
    ) {
        let query = packets::query("a.example.", "A");
        let mut answer = packets::answer(&query, &[]);
        answer[6..8].copy_from_slice(&count.to_be_bytes());
        answer.extend(noise);
        let _ = validate(&Query::read(&query).unwrap(), &answer, SOURCE);
    }

    /// Byte flips in a good answer: we never learn an address where another implementation reads
    /// none.
    #[test]
    fn what_is_learned_is_what_another_implementation_reads(
        flips in proptest::collection::vec((33usize..130, any::<u8>()), 0..3),
    ) {
        let query = packets::query("a.example.", "A");
        let mut answer = packets::answer(
            &query,
            &["a.example. 60 CNAME b.example.", "b.example. 60 A 192.0.2.1", "b.example. 60 A 192.0.2.2"],
        );
        for (at, byte) in flips {
            if let Some(place) = answer.get_mut(at) {
                *place = byte;
            }
        }
        if let (Ok(validated), Ok(theirs)) = (
            validate(&Query::read(&query).unwrap(), &answer, SOURCE),
            hickory_proto::op::Message::from_vec(&answer),
        ) {
            let theirs: Vec<IpAddr> = theirs.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
            for (address, _) in validated.addresses {
                prop_assert!(theirs.contains(&address));
            }
        }
    }
}
