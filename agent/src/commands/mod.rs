//! One module for each verb of `namegate`.
