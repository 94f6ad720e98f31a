//! The market: offers, demands, their constraint language, proposals and agreements. Sans-IO.
