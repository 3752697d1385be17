/* responses_reply.h: replies of the Responses dialect; functions as in lc_dialect (api.h). */
#ifndef LC_SERVER_RESPONSES_REPLY_H
#define LC_SERVER_RESPONSES_REPLY_H

#include "server/sse.h"

/* Of request->echoed, not sent: {name that the model sees: [namespace, name]}. */
#define LC_RESPONSES_INNER "longcat_inner"

int lc_responses_open(const lc_api_request *request, const lc_api_reply_info *info,
                      lc_api_reply **out, lc_err *err);
int lc_responses_event(lc_api_reply *reply, const lc_api_event *event, lc_buf *out, lc_err *err);
void lc_responses_close(lc_api_reply *reply);

#endif
