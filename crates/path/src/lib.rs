//! The path agent: which way bytes reach a peer (direct or relayed), measured and promoted. Sans-IO.
