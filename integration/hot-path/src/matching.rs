//! Names against selectors.

use names::{Name, NameIndex, Pattern};

use crate::BenchIteration;

/// `COUNT` patterns of all kinds, and a name that some match.
pub(crate) fn against<const COUNT: usize>() -> BenchIteration {
    let mut index = NameIndex::default();
    for i in 0..COUNT {
        let text = match i % 3 {
            0 => format!("host{i}.example.com"),
            1 => format!("*.zone{i}.example.com"),
            _ => format!("api{i}-*.example.com"),
        };
        index.insert(&Pattern::pattern(&text).unwrap(), i);
    }
    let name = Name::parse("host3.example.com").unwrap();
    Box::new(move || usize::from(index.any_match(std::hint::black_box(&name))))
}
