// Package order is what a test and the agent in a guest say to each other: JSON, a line each.
package order

// Order has the guest's shell run a command.
type Order struct {
	ID      int // above 0; the result has the same
	Command string
	Input   []byte // its standard input
}

// Result is what became of a command.
type Result struct {
	ID     int
	Output []byte // standard output and standard error as they came
	Code   int    // its exit code; 128 + N where signal N ended it
}

// Hello is the ID of a result that nobody ordered: the agent says by it that it has started.
const Hello = 0
