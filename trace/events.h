/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: what happens to connections, for tracefs, perf and trace-cmd.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM socklnd

#if !defined(_SOCKLND_TRACE_EVENTS_H) || defined(TRACE_HEADER_MULTI_READ)
#define _SOCKLND_TRACE_EVENTS_H

#include <linux/in6.h>
#include <linux/tracepoint.h>

#ifndef _SOCKLND_TRACE_CONN
#define _SOCKLND_TRACE_CONN
/* What events report about a connection. */
struct socklnd_trace_conn {
	/* NIDs in text. */
	const char *nid;
	const char *peer;
	/* Socket addresses, with room for a struct sockaddr_in6. */
	const void *local;
	const void *remote;
	int type;
};
#endif

/* The numbers of enum ConnType in wire/hello.rs. */
#define socklnd_show_type(type)		\
	__print_symbolic(type,		\
		{ 0, "any" },		\
		{ 1, "control" },	\
		{ 2, "bulk_in" },	\
		{ 3, "bulk_out" })

/* What each event records of a connection, from its argument conn. */
#define CONN_ENTRY							\
		__string(nid, conn->nid)				\
		__string(peer, conn->peer)				\
		__array(u8, local, sizeof(struct sockaddr_in6))		\
		__array(u8, remote, sizeof(struct sockaddr_in6))	\
		__field(int, type)
#define CONN_ASSIGN							\
		__assign_str(nid);					\
		__assign_str(peer);					\
		memcpy(__entry->local, conn->local, sizeof(struct sockaddr_in6));	\
		memcpy(__entry->remote, conn->remote, sizeof(struct sockaddr_in6));	\
		__entry->type = conn->type
#define CONN_PR_FMT	"nid=%s peer=%s local=%pISpc remote=%pISpc type=%s"
#define CONN_PR_ARG	__get_str(nid), __get_str(peer), __entry->local, __entry->remote,	\
			socklnd_show_type(__entry->type)

DECLARE_EVENT_CLASS(socklnd_conn,
	TP_PROTO(const struct socklnd_trace_conn *conn, u64 bytes, int error),
	TP_ARGS(conn, bytes, error),
	TP_STRUCT__entry(
		CONN_ENTRY
		__field(u64, bytes)
		__field(int, error)
	),
	TP_fast_assign(
		CONN_ASSIGN;
		__entry->bytes = bytes;
		__entry->error = error;
	),
	TP_printk(CONN_PR_FMT " bytes=%llu error=%d", CONN_PR_ARG, __entry->bytes, __entry->error)
);

/* A handshake has succeeded: there is a new connection. */
DEFINE_EVENT(socklnd_conn, socklnd_connect,
	TP_PROTO(const struct socklnd_trace_conn *conn, u64 bytes, int error),
	TP_ARGS(conn, bytes, error)
);

/* A connection has ended; bytes counts both directions. */
DEFINE_EVENT(socklnd_conn, socklnd_close,
	TP_PROTO(const struct socklnd_trace_conn *conn, u64 bytes, int error),
	TP_ARGS(conn, bytes, error)
);

/* TCP has accepted a message; bytes includes headers. */
DEFINE_EVENT(socklnd_conn, socklnd_send,
	TP_PROTO(const struct socklnd_trace_conn *conn, u64 bytes, int error),
	TP_ARGS(conn, bytes, error)
);

/* The header of a message was received; bytes includes headers. */
DEFINE_EVENT(socklnd_conn, socklnd_receive,
	TP_PROTO(const struct socklnd_trace_conn *conn, u64 bytes, int error),
	TP_ARGS(conn, bytes, error)
);

/* A connection made no progress for too long; bytes counts those that were not sent yet. */
DEFINE_EVENT(socklnd_conn, socklnd_timeout,
	TP_PROTO(const struct socklnd_trace_conn *conn, u64 bytes, int error),
	TP_ARGS(conn, bytes, error)
);

/* A connection has failed: what the error is, and what was wrong with which field and value. */
TRACE_EVENT(socklnd_conn_fail,
	TP_PROTO(const struct socklnd_trace_conn *conn, int error, const char *reason),
	TP_ARGS(conn, error, reason),
	TP_STRUCT__entry(
		CONN_ENTRY
		__field(int, error)
		__string(reason, reason)
	),
	TP_fast_assign(
		CONN_ASSIGN;
		__entry->error = error;
		__assign_str(reason);
	),
	TP_printk(CONN_PR_FMT " error=%d reason=\"%s\"", CONN_PR_ARG, __entry->error, __get_str(reason))
);

/* A handshake has failed: what the error is, and what was wrong with which field and value. */
TRACE_EVENT(socklnd_handshake_fail,
	TP_PROTO(const char *nid, const void *remote, bool active, int error, const char *reason),
	TP_ARGS(nid, remote, active, error, reason),
	TP_STRUCT__entry(
		__string(nid, nid)
		__array(u8, remote, sizeof(struct sockaddr_in6))
		__field(bool, active)
		__field(int, error)
		__string(reason, reason)
	),
	TP_fast_assign(
		__assign_str(nid);
		memcpy(__entry->remote, remote, sizeof(struct sockaddr_in6));
		__entry->active = active;
		__entry->error = error;
		__assign_str(reason);
	),
	TP_printk("nid=%s remote=%pISpc active=%d error=%d reason=\"%s\"",
		  __get_str(nid), __entry->remote, __entry->active, __entry->error,
		  __get_str(reason))
);

#endif /* _SOCKLND_TRACE_EVENTS_H */

/* Outside of the protection: it is read several times. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE events
#include <trace/define_trace.h>
