//! What the lookup path allocates, counted by the allocator.

use allocations::count;
use names::{Name, NameIndex, Pattern};

#[test]
fn a_name_from_a_packet_is_one_allocation_even_if_all_of_it_is_escaped() {
    let plain: [&[u8]; 3] = [b"Www", b"Example", b"com"];
    let (_, allocated) = count(|| Name::from_wire_labels(plain));
    assert_eq!(allocated, 1);

    // 3 × 64 + 62 octets and the root: the longest there is.
    let (long, rest) = ([0xff_u8; 63], [0xff_u8; 61]);
    let longest: [&[u8]; 4] = [&long, &long, &long, &rest];
    let (name, allocated) = count(|| Name::from_wire_labels(longest));
    assert_eq!(allocated, 1);
    assert_eq!(name.as_str().len(), 4 * (3 * 63 + 61) + 4);
}

#[test]
fn a_lookup_in_the_index_allocates_nothing() {
    let mut index = NameIndex::default();
    for (value, text) in [
        "a.example.com",
        "*.example.com",
        "**.example.com",
        "a*b*c.*.com",
        "*a.example.com",
        "*",
    ]
    .into_iter()
    .enumerate()
    {
        index.insert(&Pattern::pattern(text).unwrap(), value);
    }
    for text in ["a.example.com", "axbxc.example.com", "x.y.example.com", "none.example"] {
        let name = Name::parse(text).unwrap();
        let mut found = 0;
        let (any, allocated) = count(|| {
            index.each_match(&name, |_| found += 1);
            index.any_match(&name)
        });
        assert_eq!((any, allocated), (true, 0), "{text}");
        assert!(found > 0);
    }
}
