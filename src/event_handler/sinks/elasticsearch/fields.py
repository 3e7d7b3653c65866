"""The fields of Teleport's events and the type that each has in an index: one type for a name, whatever the event type.

Made of the fields of all 283 event types of Teleport 18. Names that several event types use for different things
(`action` is a number or a word, `status`, `message`, `body` and `target` are text or an object) have the type that
serves most of them.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What a field holds. `TEXT` also takes numbers and booleans; each kind also takes a list of what it holds."""

    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    BOOLEAN = "boolean"
    OBJECT = "object"


_NAMES = {
    Kind.TEXT: """
    access_list_name access_list_title access_requests account_id action addr.local addr.remote affected_resource_name
    affected_resource_source affected_resource_type api_error app_auth_config app_id app_name app_public_addr app_uri
    applied_login_rules argv audiences aws_assumed_role aws_host aws_region aws_role_arn aws_service azure_identity
    batch_type body bot_instance_id bot_name category cert_type challenge_scope change_id client_info client_ip_restrictions
    cluster_name code command command_id connector connector_id consistency contents crown_jewel_query
    current_crown_jewel_query current_user_task_state data db_aws_redshift_cluster_id db_aws_region db_gcp_instance_id
    db_gcp_project_id db_name db_origin db_protocol db_query db_query_parameters db_roles db_service db_type db_uri db_user
    delegator desktop_addr desktop_name directory_name display dns_sans dst_addr egress_auth_type email ending_status
    environment_profile error event event_types execution_state exitCode exitError external_id file_path filter format
    forwarded_by function_args gcp_service_account groups hint host_id id impersonator ingress_auth_type initial_command
    instance_id integration invited invocation_url ip_sans join_method jti keyspace kubernetes_cluster
    kubernetes_container_image kubernetes_container_name kubernetes_groups kubernetes_node_name kubernetes_pod_name
    kubernetes_pod_namespace kubernetes_users label_selectors login mcp_session_id message method mfa_device_name
    mfa_device_type mfa_device_uuid missing_roles model model_name name name_selector namespace new_public_key node_name
    org_url parameters participants path platform_name platform_type platform_version plugin_type portal_name
    predicate_expression previous_public_key private_key_policy proc_name procedure program promoted_access_list_name
    proposed_state proto protocol_version provider public_addr public_key query query_id raw_query reason recovery_mode
    region removed_members request_path requested_model required_private_key_policy resource_api_group resource_group
    resource_id resource_kind resource_name resource_names resource_namespace resource_type review_day_of_month_changed
    review_frequency_changed review_id reviewer risk_level role roles schema_name scope search_as_roles search_keywords
    serial_number server_addr server_hostname server_id server_info server_sub_kind server_version service
    service_provider_entity_id service_provider_shortcut session_chunk_id session_recording session_type short_description
    sid size source spiffe_id src_addr starting_status state statement_name status stderr stdout sub_kind subcommand
    submitted_by subscription_id svid_type target target_path tdpb_message teleport_id teleport_session_id token_name ttl
    uid unknown_code unknown_event updated_by updated_crown_jewel_query updated_user_task_state upgrade_window_start url
    user user_agent user_cluster_name user_name user_roles user_task_integration user_task_issue_type user_task_type
    username values verb version vm_id vm_name windows_desktop_service windows_domain windows_user with_mfa
    working_directory workload_identity workload_identity_revision
    """,
    Kind.NUMBER: """
    added admin_actions_mfa_changed affected_records app_target_port audit_session_id bytes cgroup_id ci contact_type count
    data_scanned_in_bytes data_size days deleted directory_id dst_port ei exit_code flags flow_type function_oid
    input_token_count length max ms num_app_filters num_apps num_group_filters num_groups num_users_created
    num_users_deleted num_users_modified num_users_total numAccessListMembers numAccessLists numRoles offset operation
    output_token_count parameter_id pid postgres_pid ppid process_id recovery_count resource_count response_code return_code
    rows_count rx start_index statement_id status_code total_account_assignments total_accounts total_data_scanned_in_bytes
    total_execution_time_in_millis total_permission_sets total_user_groups tx type updated user_kind user_origin
    """,
    Kind.DATE: """
    assume_start_time expires expiry inference_finished_at inference_started_at max_duration session_start session_stop time
    token_expires
    """,
    Kind.BOOLEAN: """
    allow_user_creation challenge_allow_reuse delete enhanced_recording has_credentials interactive mfa_via_browser nla
    recorded reuses_credentials success
    """,
    Kind.OBJECT: """
    actions added_resources affected_object_counts annotations app_labels args attribute_mapping attributes audit_queries
    aws_oidc aws_ra azure_oidc ca_override certificate certificate_authority children db_labels deleted_resources
    desktop_labels details device file_transfer_stats github headers identity kube_labels kubernetes_labels labels lock
    members membership_requirements_changed mfa_device payload permission_summary plugin_data request
    RequestedResourceAccessIDs resource_ids response scope_pin server_labels stable_unix_user trusted_device
    updated_resources user_traits workload_identity_data
    """,
}

FIELDS: dict[str, Kind] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
