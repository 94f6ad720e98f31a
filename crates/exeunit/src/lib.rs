//! The ExeUnit: supervisor process of one activity, interpreter of its ExeScript, and the handle its daemon holds.
