//! Errors with their causes in one line, for answers of the API and the command line.

use std::error::Error;

/// An error and its causes in one line. A cause that the text already contains is left out.
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text_of_cause = error.to_string();
        if !text.contains(&text_of_cause) {
            text.push_str(": ");
            text.push_str(&text_of_cause);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|it| it as &dyn Error)
        }
    }

    #[test]
    fn causes_are_joined_and_not_repeated() {
        let cause = || Some(Box::new(Layer("permission denied", None)));
        assert_eq!(
            error_chain(&Layer("cannot bind", cause())),
            "cannot bind: permission denied"
        );
        assert_eq!(
            error_chain(&Layer("no: permission denied", cause())),
            "no: permission denied"
        );
    }
}
