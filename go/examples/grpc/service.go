package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// service is what protoc would write for
//
//	service Texts {
//	  rpc Upper(google.protobuf.StringValue) returns (google.protobuf.StringValue);
//	  rpc Split(google.protobuf.StringValue) returns (stream google.protobuf.StringValue);
//	  rpc Join(stream google.protobuf.StringValue) returns (google.protobuf.StringValue);
//	  rpc Echo(stream google.protobuf.StringValue) returns (stream google.protobuf.StringValue);
//	}
//
// It is written by hand, so that the examples build without protoc.
var service = grpc.ServiceDesc{
	ServiceName: "examples.Texts",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Upper",
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			text := new(wrapperspb.StringValue)
			if err := decode(text); err != nil {
				return nil, err
			}
			return srv.(texts).upper(ctx, text)
		},
	}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Split", ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			text := new(wrapperspb.StringValue)
			if err := s.RecvMsg(text); err != nil {
				return err
			}
			return srv.(texts).split(text, &serverStream{ServerStream: s})
		}},
		{StreamName: "Join", ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			return srv.(texts).join(&serverStream{ServerStream: s})
		}},
		{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
			return srv.(texts).echo(&serverStream{ServerStream: s})
		}},
	},
}

type (
	serverStream = grpc.GenericServerStream[wrapperspb.StringValue, wrapperspb.StringValue]
	clientStream = grpc.GenericClientStream[wrapperspb.StringValue, wrapperspb.StringValue]
)

// upper calls Upper.
func upper(ctx context.Context, conn *grpc.ClientConn, text string) (string, error) {
	answer := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, "/examples.Texts/Upper", wrapperspb.String(text), answer)
	return answer.Value, err
}

// open begins a call of a method that streams.
func open(ctx context.Context, conn *grpc.ClientConn, method string) (*clientStream, error) {
	for i := range service.Streams {
		if service.Streams[i].StreamName == method {
			s, err := conn.NewStream(ctx, &service.Streams[i], "/examples.Texts/"+method)
			return &clientStream{ClientStream: s}, err
		}
	}
	panic("no method " + method + " streams")
}
