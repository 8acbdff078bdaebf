// Package archtest holds the tests that keep the shape of the code: which
// package may import which, who may speak to PostgreSQL's driver, and the house
// rules that a machine can check. The table is in layers_test.go.
package archtest
