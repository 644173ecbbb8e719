// Command postgres is a client of PostgreSQL over Machnet, by database/sql and its pool of connections; it has a small server of that
// protocol, too.
//
//	MACHNET_SOCKET=/tmp/b.sock postgres -listen :5432
//	MACHNET_SOCKET=/tmp/a.sock postgres -to 10.0.0.2:5432 "echo hello"
//
// A real PostgreSQL speaks TCP: `machnet proxy --listen machnet://:5432 --to tcp://localhost:5432` on its host brings Machnet to it.
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/machnet/machnet/go/machnet"
)

func main() {
	listen := flag.String("listen", "", "serve at this address")
	to := flag.String("to", "", "use the server at this address")
	flag.Parse()
	if (*listen == "") == (*to == "" || flag.NArg() != 1) {
		log.Fatal("say -listen ADDRESS to serve, or -to ADDRESS and a statement, like \"echo hello\"")
	}
	if *listen != "" {
		l, err := machnet.Listen("machnet", *listen)
		if err != nil {
			log.Fatal(err)
		}
		log.Fatal(new(server).serve(l))
	}
	db, err := open(&machnet.Dialer{Timeout: 5 * time.Second}, *to)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(context.Background(), flag.Arg(0))
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			log.Fatal(err)
		}
		fmt.Println(text)
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
}

// open gives a pool of connections, of which none is made yet.
func open(d *machnet.Dialer, to string) (*sql.DB, error) {
	c, err := pgx.ParseConfig("postgres://example@" + to + "/example?sslmode=disable")
	if err != nil {
		return nil, err
	}
	// pgx would resolve names by itself, and ours are the dialer's.
	c.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	c.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) {
		return d.DialContext(ctx, "machnet", address)
	}
	db := stdlib.OpenDB(*c)
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db, nil
}
