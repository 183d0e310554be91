mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name                = "roster"
  deletion_protection = true
  noncurrent_days     = 7
}

run "table" {
  assert {
    condition     = aws_dynamodb_table.users.name == "roster-users" && aws_dynamodb_table.users.hash_key == "id" && aws_dynamodb_table.users.range_key == null && aws_dynamodb_table.users.attribute == toset([{ name = "id", type = "S" }])
    error_message = "The key is the string id."
  }

  assert {
    condition     = aws_dynamodb_table.users.billing_mode == "PAY_PER_REQUEST"
    error_message = "The table is on demand."
  }

  assert {
    condition     = one(aws_dynamodb_table.users.point_in_time_recovery).enabled && one(aws_dynamodb_table.users.server_side_encryption).enabled && aws_dynamodb_table.users.deletion_protection_enabled
    error_message = "The table can be restored, is encrypted and cannot be deleted."
  }
}

run "bucket" {
  assert {
    condition     = aws_s3_bucket.avatars.bucket_prefix == "roster-avatars-" && aws_s3_bucket.avatars.force_destroy == false
    error_message = "The bucket is named after the deployment and is not deleted with its content."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.avatars.block_public_acls && aws_s3_bucket_public_access_block.avatars.block_public_policy && aws_s3_bucket_public_access_block.avatars.ignore_public_acls && aws_s3_bucket_public_access_block.avatars.restrict_public_buckets
    error_message = "The bucket cannot be made public."
  }

  assert {
    condition     = one(aws_s3_bucket_ownership_controls.avatars.rule).object_ownership == "BucketOwnerEnforced"
    error_message = "The owner of the bucket owns every object, without ACLs."
  }

  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.avatars.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "Objects are encrypted."
  }

  assert {
    condition     = one(aws_s3_bucket_versioning.avatars.versioning_configuration).status == "Enabled"
    error_message = "Deleted objects can be restored."
  }

  assert {
    condition = jsondecode(aws_s3_bucket_policy.avatars.policy).Statement == [
      {
        Sid       = "DenyPlainHTTP"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = ["arn:aws:s3:::roster-avatars-0123", "arn:aws:s3:::roster-avatars-0123/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "DenyOldTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = ["arn:aws:s3:::roster-avatars-0123", "arn:aws:s3:::roster-avatars-0123/*"]
        Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
      },
    ]
    error_message = "The policy requires TLS 1.2 and allows nothing."
  }

  assert {
    condition = alltrue([for resource in [
      aws_s3_bucket_public_access_block.avatars,
      aws_s3_bucket_ownership_controls.avatars,
      aws_s3_bucket_server_side_encryption_configuration.avatars,
      aws_s3_bucket_versioning.avatars,
      aws_s3_bucket_policy.avatars,
      aws_s3_bucket_lifecycle_configuration.avatars,
    ] : resource.bucket == aws_s3_bucket.avatars.id])
    error_message = "Every setting is for this bucket."
  }
}

run "lifecycle" {
  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.avatars.rule : rule.status == "Enabled" && length(rule.filter) == 1])
    error_message = "Both rules are enabled, for the whole bucket."
  }

  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.avatars.rule[0].noncurrent_version_expiration).noncurrent_days == 7 && one(aws_s3_bucket_lifecycle_configuration.avatars.rule[0].expiration).expired_object_delete_marker
    error_message = "Noncurrent versions and their delete markers expire."
  }

  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.avatars.rule[1].abort_incomplete_multipart_upload).days_after_initiation == 1
    error_message = "Broken multipart uploads expire."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.avatars.rule : alltrue([for expiration in rule.expiration : expiration.days == null && expiration.date == null])])
    error_message = "Current objects never expire."
  }
}

run "without_deletion_protection" {
  variables {
    deletion_protection = false
  }

  assert {
    condition     = aws_dynamodb_table.users.deletion_protection_enabled == false && aws_s3_bucket.avatars.force_destroy
    error_message = "Table and bucket can be deleted with their content."
  }
}

run "restored_table" {
  variables {
    name = "other"
  }

  assert {
    condition     = aws_dynamodb_table.users.name == "roster-users" && output.table_name == "roster-users"
    error_message = "A table with another name stays."
  }
}

run "outputs" {
  assert {
    condition     = output.table_name == "roster-users" && output.table_arn == "arn:aws:dynamodb:eu-west-1:123456789012:table/roster-users" && output.bucket_name == "roster-avatars-0123" && output.bucket_arn == "arn:aws:s3:::roster-avatars-0123"
    error_message = "The outputs are names and ARNs of table and bucket."
  }
}
