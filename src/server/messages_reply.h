/* messages_reply.h: replies of the Anthropic Messages dialect; functions as in lc_dialect (api.h).
 */
#ifndef LC_SERVER_MESSAGES_REPLY_H
#define LC_SERVER_MESSAGES_REPLY_H

#include "server/api.h"

void lc_messages_error(const lc_api_error *error, const char *request_id, lc_buf *out);
int lc_messages_open(const lc_api_request *request, const lc_api_reply_info *info,
                     lc_api_reply **out, lc_err *err);
int lc_messages_event(lc_api_reply *reply, const lc_api_event *event, lc_buf *out, lc_err *err);
void lc_messages_close(lc_api_reply *reply);

#endif
