"""The demo's data: a real shop's invoices, in the package so that they are always there."""
