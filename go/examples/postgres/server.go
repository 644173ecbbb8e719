package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// server speaks PostgreSQL's protocol and three statements: "echo TEXT" or "echo $1", "session", which is the connection's number, and
// "rows COUNT SIZE". It asks for no password.
type server struct {
	mu       sync.Mutex
	last     int              // the number of the last session
	sessions map[int]net.Conn // those that are open
}

// serve serves until the listener closes.
func (s *server) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			number := s.enter(c)
			defer s.leave(number)
			_ = (&session{number: number, Backend: pgproto3.NewBackend(c, c)}).run(c)
		}()
	}
}

func (s *server) enter(c net.Conn) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == nil {
		s.sessions = make(map[int]net.Conn)
	}
	s.last++
	s.sessions[s.last] = c
	return s.last
}

func (s *server) leave(number int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, number)
}

// session is one connection.
type session struct {
	*pgproto3.Backend
	number    int
	statement string // the last that was parsed, and then the one that was bound
}

func (s *session) run(c net.Conn) error {
	if err := s.start(c); err != nil {
		return err
	}
	for {
		message, err := s.Receive()
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.Query:
			s.statement = m.String
			s.Send(column())
			s.execute()
			s.ready()
		case *pgproto3.Parse:
			s.statement = m.Query
			s.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Describe:
			if m.ObjectType == 'S' {
				s.Send(&pgproto3.ParameterDescription{ParameterOIDs: make([]uint32, strings.Count(s.statement, "$"))})
			}
			s.Send(column())
		case *pgproto3.Bind:
			for _, p := range m.Parameters {
				s.statement = "echo " + string(p)
			}
			s.Send(&pgproto3.BindComplete{})
		case *pgproto3.Execute:
			s.execute()
		case *pgproto3.Close:
			s.Send(&pgproto3.CloseComplete{})
		case *pgproto3.Sync:
			s.ready()
		case *pgproto3.Terminate:
			return nil
		}
		if err := s.Flush(); err != nil {
			return err
		}
	}
}

// start is what comes before the first statement.
func (s *session) start(c net.Conn) error {
	for {
		message, err := s.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		switch message.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := io.WriteString(c, "N"); err != nil { // no, in plain text
				return err
			}
		case *pgproto3.StartupMessage:
			s.Send(&pgproto3.AuthenticationOk{})
			for name, value := range map[string]string{
				"client_encoding": "UTF8", "server_version": "17.0", "standard_conforming_strings": "on",
			} {
				s.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
			}
			s.Send(&pgproto3.BackendKeyData{ProcessID: uint32(s.number), SecretKey: make([]byte, 4)})
			s.ready()
			return s.Flush()
		default:
			return errors.New("cancelling is not known here")
		}
	}
}

func (s *session) ready() { s.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'}) }

// execute answers the statement.
func (s *session) execute() {
	row := func(text string) { s.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(text)}}) }
	var count, size int
	statement := strings.TrimSuffix(s.statement, ";")
	switch text, isEcho := strings.CutPrefix(statement, "echo "); {
	case isEcho:
		row(text)
	case statement == "session":
		row(fmt.Sprint(s.number))
	case strings.HasPrefix(statement, "rows "):
		if _, err := fmt.Sscanf(statement, "rows %d %d", &count, &size); err == nil {
			for range count {
				row(strings.Repeat("r", size))
			}
			break
		}
		fallthrough
	default:
		if !strings.HasPrefix(statement, "--") { // what pgx sends to see whether anybody is there
			s.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42601", Message: "no such statement: " + statement})
			return
		}
	}
	s.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT")})
}

// column describes the one column of every answer.
func column() *pgproto3.RowDescription {
	return &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{
		Name: []byte("text"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1,
	}}}
}
