package main

import (
	"io"
	"log"
	"net/rpc"
	"testing"

	"go.uber.org/goleak"

	"github.com/machnet/machnet/go/examples/internal/hosts"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // package rpc logs that its listener closed
	goleak.VerifyTestMain(m)
}

func TestCallsShareAConnection(t *testing.T) {
	d, l := hosts.Two(t)
	go serve(l)
	client, err := dial(t.Context(), d, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var calls []*rpc.Call
	for i := range 500 {
		calls = append(calls, client.Go("Calculator.Multiply", Factors{i, i + 1}, new(int), nil))
	}
	for i, c := range calls {
		<-c.Done
		if c.Error != nil || *c.Reply.(*int) != i*(i+1) {
			t.Fatalf("%d * %d = %d, %v", i, i+1, *c.Reply.(*int), c.Error)
		}
	}
	if err := client.Call("Calculator.Divide", Factors{}, new(int)); err == nil {
		t.Error("a method that is not there was called")
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := client.Call("Calculator.Multiply", Factors{}, new(int)); err != rpc.ErrShutdown {
		t.Errorf("a call after Close: %v, want %v", err, rpc.ErrShutdown)
	}
}
