//! The daemon's services: networks, agreements, activities and files, on top of Golem Net.
