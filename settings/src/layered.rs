//! Options over options: what one source leaves out, the next one says.

/// A value that may be left out.
pub(super) trait Layered {
    /// This value, or `below` where this one is left out.
    fn over(self, below: Self) -> Self;
}

impl<T> Layered for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
}

impl<T> Layered for Vec<T> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }
}

/// Declares a struct of options, and lays it over another field by field.
macro_rules! layered {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$of_field:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[$of_field])* pub $field: $type,)*
        }

        impl Layered for $name {
            fn over(self, below: Self) -> Self {
                Self { $($field: Layered::over(self.$field, below.$field),)* }
            }
        }
    };
}

pub(super) use layered;
