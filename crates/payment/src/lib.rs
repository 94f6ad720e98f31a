//! Payment documents: allocations, debit notes, invoices, and the driver that moves no money. Sans-IO.
