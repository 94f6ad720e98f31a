//! Client library for a daemon's API.
